"""
A palette of twelve colours
===========================

Which few colours stand for all of a picture? A palette is a small cloud in the cube of red, green and blue, and the
best one is nearest to the cloud of all pixels: a barycenter of a single measure, with free points.
"""

# %%
# The pixels
# ----------
#
# scikit-image's cup of coffee. 3000 pixels, drawn at random, stand for all of them.

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import coffee

import epsot

COLOURS = 12
rng = np.random.default_rng(0)
picture = coffee()[::2, ::2] / 255  # (200, 300, 3)
pixels = picture.reshape(-1, 3)
some = pixels[rng.choice(len(pixels), 3000, replace=False)]

# %%
# The palette
# -----------
#
# Twelve equal weights, so that each colour stands for a twelfth of the picture: colours that cover much get several
# shades, as a painter would mix them. (k-means asks for the nearest colour only, and lets its shares fall as they may.)

start = some[rng.choice(len(some), COLOURS, replace=False)]
found = epsot.free_barycenter([some], init=start, blur=0.02)
palette = np.clip(found.points, 0, 1)
palette = palette[np.argsort(palette @ [0.299, 0.587, 0.114])]
print(found)

# %%
# The picture, in these
# ---------------------
#
# Each pixel takes its nearest colour, or, by the plan, exactly a twelfth of all pixels take each. The plan uses the
# palette as evenly as it was made.

nearest = np.argmin(np.linalg.norm(pixels[:, None] - palette, axis=2), axis=1)
plan = epsot.sinkhorn(pixels, palette, blur=0.02, tol=1e-2).plan
even = plan.argmax(axis=1)
figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
for ax, shown, title in (
    (axes[0], picture, f"{len(np.unique(pixels, axis=0))} colours"),
    (axes[1], palette[nearest].reshape(picture.shape), "nearest of twelve"),
    (axes[2], palette[even].reshape(picture.shape), "a twelfth to each, by the plan"),
):
    ax.imshow(shown)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# How much of the picture each colour covers:

figure, axes = plt.subplots(2, 1, figsize=(8, 2.2), layout="constrained")
for ax, chosen, title in ((axes[0], nearest, "nearest"), (axes[1], even, "by the plan")):
    width = np.bincount(chosen, minlength=COLOURS) / len(pixels)
    ax.barh(np.zeros(COLOURS), width, left=np.cumsum(width) - width, color=palette, height=1)
    ax.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[])
    ax.set_ylabel(title, rotation=0, ha="right", va="center")
plt.show()
