"""Look at the built site: python docs/check_site.py docs/_build

Without a browser the pages are parsed: links within the site, formulas, figures. With Chromium every page is opened as
well, as wide as a desk and as a phone, and what its console says, what it could not load, formulas that stayed TeX,
figures without pixels, and pages that scroll sideways are faults. Nothing is asked of a network. The exit status is 1
where there is a fault.
"""

from __future__ import annotations

import argparse
import http.server
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

WIDTHS = {"desk": (1400, 900), "phone": (390, 844)}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # what a page wants from a network is a fault
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RAW_TEX = re.compile(r"\\\(|\\\[|\\(?:frac|tfrac|sum|langle|varepsilon|mathrm|begin)\b|(?<!\$)\$\$")
LEAST_PAGES = 40  # a site with fewer was not built whole
SKIPPED = ("_modules/", "genindex", "py-modindex", "search")  # source code, and lists of links that other pages have

# What a page says of itself once it is drawn.
LOOK = """() => {
    const text = document.querySelector("article, main, body").cloneNode(true);
    text.querySelectorAll("pre, code, script, style, mjx-container, annotation").forEach(e => e.remove());
    const images = [...document.images].filter(e => e.getClientRects().length);
    return {
        text: text.textContent,
        blank: images.filter(e => !e.complete || e.naturalWidth === 0).map(e => e.getAttribute("src")),
        formulas: document.querySelectorAll(".math").length,
        drawn: document.querySelectorAll("mjx-container svg").length,
        failed: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        clipped: [...document.querySelectorAll("table")].filter(e => {
            for (let p = e; p; p = p.parentElement) if (getComputedStyle(p).overflowX !== "visible") return false;
            return e.scrollWidth > document.documentElement.clientWidth;
        }).length,
    };
}"""


LOAD_ALL = """Promise.all([...document.images].map(e => { e.loading = "eager"; return e.decode().catch(() => 0) }))"""


class Page(HTMLParser):
    """Links, images, anchors and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self.hidden = 0  # within code, scripts, and formulas, which are TeX until a browser draws them

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script") and "src" in given:
            self.images.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.images.append(given.get("href", ""))
        if self.hidden or tag in ("pre", "code", "script", "style") or "math" in given.get("class", "").split():
            self.hidden += tag not in ("br", "img", "input", "hr", "wbr", "meta", "link")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= self.hidden > 0

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.text.append(data)


@cache
def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def static_faults(site: Path, path: Path) -> Iterator[str]:
    """Links and files that lead nowhere, and TeX outside of formulas."""
    page = parsed(path)
    for link in page.links + page.images:
        address, anchor = urldefrag(link)
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            if link in page.images:
                yield f"is loaded from a network: {link}"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"leads nowhere: {link}"
        elif anchor and target.suffix == ".html" and unquote(anchor) not in parsed(target).anchors:
            yield f"leads to no place on its page: {link}"
    if found := RAW_TEX.search("".join(page.text)):
        yield f"raw TeX: {found.group()}"
    if (
        "auto_examples" in path.parts
        and path.name.startswith("plot_")
        and not any("sphx_glr" in z for z in page.images)
    ):
        yield "an example without a figure"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def served(site: Path) -> http.server.ThreadingHTTPServer:
    """The site on a port of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def drawn_faults(look: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a page as it was drawn."""
    if look["wide"] > 0:
        yield f"scrolls sideways by {look['wide']} pixels"
    if look["clipped"]:
        yield f"{look['clipped']} tables are cut off"
    for image in look["blank"]:
        yield f"a figure without pixels: {image}"
    if look["drawn"] < look["formulas"] or look["failed"]:
        yield f"{look['formulas']} formulas, of which {look['drawn']} are drawn and {look['failed']} failed"
    if found := RAW_TEX.search(look["text"]):
        yield f"raw TeX as drawn: {found.group()}"


def visit(view: Any, address: str, shot: Path | None) -> Iterator[str]:
    """Open a page, and look at it at both widths."""
    said: list[str] = []
    listeners = {
        "console": lambda message: said.append(f"console: {message.text}") if message.type == "error" else None,
        "pageerror": lambda error: said.append(f"script: {error}"),
        "requestfailed": lambda request: said.append(f"not loaded: {request.url}"),
    }
    for event, listener in listeners.items():
        view.on(event, listener)
    view.goto(address, wait_until="load")
    if view.evaluate("document.querySelectorAll('.math').length"):
        view.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        view.evaluate("MathJax.startup.promise")
    view.evaluate(LOAD_ALL)
    for name, (width, height) in WIDTHS.items():
        view.set_viewport_size({"width": width, "height": height})
        for fault in drawn_faults(view.evaluate(LOOK)):
            yield f"{name}: {fault}"
        if shot is not None:
            view.screenshot(path=shot.with_name(f"{shot.name}-{name}.png"), full_page=True)
    yield from said
    for event, listener in listeners.items():
        view.remove_listener(event, listener)


def browser_faults(site: Path, chosen: list[Path], executable: str, shots: Path | None) -> Iterator[tuple[Path, str]]:
    from playwright.sync_api import sync_playwright

    server = served(site)
    own = f"http://127.0.0.1:{server.server_address[1]}"
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        view = browser.new_page()
        for path in chosen:
            name = path.relative_to(site).as_posix()
            shot = None if shots is None else shots / name.replace("/", "-")
            for fault in visit(view, f"{own}/{name}", shot):
                yield path, fault
        browser.close()
    server.shutdown()


def browser() -> str | None:
    """Where Chromium is, if it and Playwright can be used."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return None
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="the folder with index.html")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the pages")
    parser.add_argument("--only", help="a part of the names of the pages to open")
    options = parser.parse_args()
    site = options.site.resolve()
    found = pages(site)
    if len(found) < LEAST_PAGES:
        print(f"{site} has {len(found)} pages: it was not built whole")
        return 1
    faults = [(path, fault) for path in found for fault in static_faults(site, path)]
    opened = [
        p for p in found if not p.relative_to(site).as_posix().startswith(SKIPPED) and (options.only or "") in str(p)
    ]
    executable = browser()
    if executable is None:
        print("NO BROWSER: Chromium or the package playwright is missing; pages were parsed, and not drawn")
    else:
        faults += browser_faults(site, opened, executable, options.shots)
    for path, fault in dict.fromkeys(faults):
        print(f"{path.relative_to(site)}: {fault}")
    drawn = "none drawn" if executable is None else f"{len(opened)} drawn at {len(WIDTHS)} widths"
    print(f"{len(found)} pages parsed, {drawn}; {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
