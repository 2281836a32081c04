"""The picture of the README: python docs/images/make_picture.py"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

import epsot
from epsot.demo import densities

BLURS = (0.5, 0.125, 1 / 32, 1 / 128)
ARROWS = 60  # more hide the points that they start from


def picture(path: Path, points: int = 3600) -> None:
    """The unbiased divergence at four blurs, in a row, converged; 256 colours keep the file small."""
    x, a, b = densities(points)
    results = [epsot.sinkhorn_divergence(x, x, a, b, blur=blur) for blur in BLURS]
    titles = [f"blur = {blur:.3g}" for blur in BLURS]
    options = {"levels": np.linspace(-1, 1, 21), "extent": (0, 1, 0, 1), "arrows": ARROWS}
    figure = epsot.plot.sweep(results, columns=len(BLURS), titles=titles, panel=2.6, **options)
    figure.savefig(path, dpi=140)
    plt.close(figure)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256)
    small.save(path, optimize=True)


if __name__ == "__main__":
    picture(Path(__file__).with_name("epsilon_scaling.png"))
