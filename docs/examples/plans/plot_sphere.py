r"""
A cost of your own: ways on a sphere
====================================

Points on the Earth are as far apart as the way along the surface is long. The cost is half of its square, written as
a :class:`epsot.Cost` in a few lines; values, plans, gradients and maps follow.
"""

# %%
# The cost
# --------
#
# Points are unit vectors, and the angle between two is the length of the way on a sphere of radius one. ``gradient`` is
# that in the first point, along the surface: it is needed for displacements only. ``atan2`` is exact at small angles,
# where the arc cosine is not.

import matplotlib.pyplot as plt
import numpy as np

import epsot


class Geodesic(epsot.Cost):
    """Half of the squared angle between unit vectors."""

    degree = 2

    def angle(self, x, y):
        return 2 * np.arctan2(np.linalg.norm(x - y, axis=-1), np.linalg.norm(x + y, axis=-1))

    def value(self, x, y):
        return self.angle(x, y) ** 2 / 2

    def gradient(self, x, y):
        """Away from y, along the surface, as long as the way."""
        towards = y - np.sum(x * y, axis=-1, keepdims=True) * x
        length = np.linalg.norm(towards, axis=-1, keepdims=True)
        return -self.angle(x, y)[..., None] * towards / np.where(length > 0, length, 1)


# %%
# A check that any gradient deserves, by differences along the surface:

rng = np.random.default_rng(0)
p, q, v = rng.normal(size=(3, 3))
p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
v -= np.dot(p, v) * p
cost, step = Geodesic(), 1e-6


def nearby(s):
    return (p + s * v) / np.linalg.norm(p + s * v)


slope = (cost.value(nearby(step), q) - cost.value(nearby(-step), q)) / (2 * step)
print(f"slope {slope:.8f}, by the formula {np.dot(cost.gradient(p, q), v):.8f}")

# %%
# Two swarms on either side of the pole
# -------------------------------------
#
# Storms over Canada, and where they are seen later, over Siberia. On a map in degrees the two are half a world apart;
# along the surface the pole is on the way.


def swarm(n, latitude, longitude, spread):
    """Unit vectors around a place, (n, 3)."""
    lat, lon = np.deg2rad([latitude, longitude])
    centre = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    points = centre + spread * rng.normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def degrees(points):
    """Longitude east, in [0, 360), and latitude.  (..., 3) -> (..., 2)"""
    lon, lat = np.arctan2(points[..., 1], points[..., 0]), np.arcsin(np.clip(points[..., 2], -1, 1))
    return np.rad2deg(np.stack([lon % (2 * np.pi), lat], axis=-1))


x, y = swarm(300, 62, -100, 0.12), swarm(350, 66, 95, 0.12)
blur = 0.05
result = epsot.divergence(epsot.PointCloud(x, y, cost=cost), eps=blur**2)
mean = np.sqrt(2 * float(result.value))
print(f"{result.status.name}, {mean:.3f} rad or {6371 * mean:.0f} km along the surface")

flat = epsot.sinkhorn_divergence(np.deg2rad(degrees(x)), np.deg2rad(degrees(y)), blur=blur)
print(f"with longitude and latitude for coordinates: {6371 * np.sqrt(2 * float(flat.value)):.0f} km")

# %%
# The displacement is a tangent vector, and the way follows the surface along it: a curve on a map of degrees, nearly
# straight in a view from above the pole.


def along(x, v, t):
    """Where the great circles from x along v are at times t.  -> (len(t), n, 3)"""
    speed = np.linalg.norm(v, axis=1, keepdims=True)
    turn = t[:, None, None] * speed
    return np.cos(turn) * x + np.sin(turn) * v / np.where(speed > 0, speed, 1)


v = result.displacement
print(f"along the surface up to {np.abs(np.sum(v * x, axis=1)).max():.0e}")
paths = along(x[::8], v[::8], np.linspace(0, 1, 60))  # (60, n, 3)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained", width_ratios=[1.35, 1])
for ax, view in zip(axes, (degrees, lambda z: z[..., :2].copy()), strict=True):
    lines = view(paths)
    lines[1:][np.abs(np.diff(lines, axis=0)) > 180] = np.nan  # where one leaves the map
    ax.plot(*np.moveaxis(lines, -1, 0), color="0.5", lw=0.6)
    for points, color in ((x, "#D55E00"), (y, "#0072B2")):
        ax.scatter(*view(points).T, s=8, color=color, linewidths=0, zorder=2)
for latitude in (30, 45, 60, 75):
    r = np.cos(np.deg2rad(latitude))
    axes[1].add_patch(plt.Circle((0, 0), r, fill=False, color="0.85"))
    axes[1].text(r, 0, f"{latitude}°", color="0.5", ha="center", va="center", backgroundcolor="white", fontsize=8)
axes[0].set(xlim=(0, 360), ylim=(30, 90), xlabel="longitude, east", ylabel="latitude", title="on a map of degrees")
axes[0].grid(color="0.9")
axes[1].set(aspect="equal", xlim=(-0.92, 0.92), ylim=(-0.92, 0.92), title="from above the pole")
axes[1].set_axis_off()
plt.show()
