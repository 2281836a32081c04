"""Figures of the gallery as files with a palette of 256 colours: a third of their size, and to the eye the same."""

from PIL import Image
from sphinx_gallery.scrapers import matplotlib_scraper


def scraper(block, block_vars, gallery_conf):
    """The scraper for Matplotlib; what it has written is written once more."""
    paths = block_vars["image_path_iterator"].paths
    before = len(paths)
    found = matplotlib_scraper(block, block_vars, gallery_conf)
    for path in paths[before:]:
        with Image.open(path) as figure:
            few = figure.convert("RGB").quantize(
                256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
            )
        few.save(path, optimize=True)
    return found


def _get_sg_image_scraper():
    """The name by which Sphinx-Gallery asks a module for its scraper."""
    return scraper
