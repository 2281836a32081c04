r"""
Ways to work, and a bridge that closes
======================================

The gravity model of traffic is an entropic plan: given how many people live and work in each district, and what a way
between two of them costs, the most likely traffic with a given mean cost is
:math:`T_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon)` (Wilson, 1967). A pair that must not meet costs
``inf``.
"""

# %%
# A city on a river
# -----------------
#
# Homes are everywhere, work is in the centre and at one place in the east. A way is straight, or over a bridge. Nobody
# goes farther than 10 km, and traffic within a district does not count: those pairs are forbidden.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from scipy.spatial.distance import cdist

import epsot

# sphinx_gallery_thumbnail_number = 2

rng = np.random.default_rng(1)
places = rng.uniform([0, 0], [12, 8], (120, 2))  # kilometres
places = places[np.abs(places[:, 1] - 4) > 0.3]
south = places[:, 1] < 4
bridges = np.array([[1.5, 4.0], [6.0, 4.0], [11.0, 4.0]])
homes = rng.gamma(3.0, 1.0, len(places))
work = sum(k * np.exp(-np.sum((places - at) ** 2, axis=1) / 3) for k, at in ((8, [5.5, 5.3]), (5, [10, 2]))) + 0.1
a, b = homes / homes.sum(), work / work.sum()


def ways(bridges):
    """Lengths of the ways between districts, inf where there is none.  -> (n, n)"""
    over = cdist(places, bridges)
    C = np.where(south[:, None] == south, cdist(places, places), np.min(over[:, None] + over, axis=2))
    return np.where((C > 10) | np.eye(len(places), dtype=bool), np.inf, C)


before, after = ways(bridges), ways(bridges[[0, 2]])
closed, more = np.isinf(before).mean(), np.isinf(after).mean()
print(f"{len(places)} districts; {closed:.0%} of the pairs are forbidden, {more:.0%} without the bridge in the middle")

# %%
# How far do people go?
# ---------------------
#
# The temperature says how much a kilometre matters. A survey would tell the mean length of a way; here it was 3.7 km.
# ``transport_cost`` is that mean, for an array of temperatures in one batch, and the temperature is read off.

eps = np.geomspace(0.1, 10, 20)
survey = 3.7
mean = epsot.solve(epsot.CostMatrix(before), a, b, eps=eps).transport_cost
fitted = float(np.exp(np.interp(survey, mean, np.log(eps))))
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.semilogx(eps, mean, "o-", ms=4, color="#0072B2")
ax.plot([eps[0], fitted, fitted], [survey, survey, mean.min()], color="#D55E00", lw=1)
ax.set(
    xlabel="temperature, km", ylabel="mean way, km", title=f"a mean of {survey} km: a temperature of {fitted:.2f} km"
)
plt.show()

# %%
# Before and after
# ----------------
#
# No traffic is on forbidden pairs, and the sums are homes and work. Without the bridge a third of the traffic across
# the river stays on its own side: people do not drive the longer way, they work elsewhere. The mean way is even a
# little shorter.

plans = {}
for name, C in (("three bridges", before), ("two bridges", after)):
    result = epsot.solve(epsot.CostMatrix(C), a, b, eps=fitted, tol=1e-6)
    plans[name] = T = result.plan.to_dense()
    mean, across, forbidden = float(result.transport_cost), T[south[:, None] != south].sum(), T[np.isinf(C)].sum()
    print(f"{name}: mean way {mean:.2f} km, {across:.0%} across the river, {forbidden:g} on forbidden pairs")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for ax, (name, T), open_ones in zip(axes, plans.items(), (bridges, bridges[[0, 2]]), strict=True):
    i, j = np.unravel_index(np.argsort(-T, axis=None)[:300], T.shape)
    lines = []
    for p, q, here, there in zip(places[i], places[j], south[i], south[j], strict=True):
        way = open_ones[np.argmin(np.linalg.norm(open_ones - p, axis=1) + np.linalg.norm(open_ones - q, axis=1))]
        lines.append([p, q] if here == there else [p, way, q])
    ax.axhspan(3.8, 4.2, color="#CFE3F5", zorder=0)
    ax.add_collection(LineCollection(lines, linewidths=700 * T[i, j], color="0.25", alpha=0.5))
    ax.scatter(*places.T, s=2500 * a, color="#0072B2", linewidths=0, label="homes", zorder=2)
    ax.scatter(*places.T, s=2500 * b, facecolor="none", edgecolor="#D55E00", label="work", zorder=3)
    ax.scatter(*open_ones.T, marker="s", s=40, color="black", label="bridge", zorder=4)
    ax.set(title=f"{name}: the 300 largest flows", aspect="equal", xticks=[], yticks=[])
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()
