"""The role :example:`plot_registration`: a link to a page of the gallery, in whatever section it is."""

from pathlib import PurePosixPath

from sphinx.errors import ExtensionError
from sphinx.roles import XRefRole


class ExampleRole(XRefRole):
    """A document of the gallery, found by the name of its file."""

    def process_link(self, env, refnode, has_explicit_title, title, target):
        found = [name for name in env.found_docs if PurePosixPath(name).name == target and "auto_examples" in name]
        if len(found) != 1:
            raise ExtensionError(f"{env.docname}: one example is to be named {target}, found {found or 'none'}")
        refnode["refdomain"], refnode["reftype"] = "std", "doc"
        return title, "/" + found[0]


def setup(app):
    app.add_role("example", ExampleRole(warn_dangling=True))
    return {"parallel_read_safe": True, "version": "1"}
