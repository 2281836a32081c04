"""Does anything beat the dense path in more than three dimensions?

OPENBLAS_NUM_THREADS=1 python asv_benchmarks/many_dimensions.py [n [word in the name of a problem]]

Ideas that pay for d <= 3, or might for more, on one core in CPU seconds:

tiles   Of 64 x 64 pairs, left out at convergence as if their part of each row's sum were known exactly: the best that
        any bound can do. Rows and columns in the order of median splits, or of k-means.
lists   Of the pairs that matter, for each row. Entries keep their logit, 8 bytes with the column, or are computed anew
        from gathered points. A bound gives the guarantee of the kernels: where every pair left out was below 2^-T when
        the list was made, none is above 2^(drift - T) now. Where that is too much, a pass is dense again.
starts  Potentials from clusters, from every 16th point, or a lower temperature to start from.

What came out, and why the dense path stays: `docs/performance.rst`, "More than three dimensions".

Something like single-cell data is solved beside the problems of all benchmarks: twenty anisotropic clusters of
dimension five, bent into fifty dimensions, with noise. Its temperatures are parts of the mean cost, as tools for such
data set them; the blurs are 0.08, 0.18 and 0.58 of the median distance to the nearest neighbour.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from unittest import mock

import numba
import numpy as np
from benchmarks.problems import Task, clouds
from scipy.cluster.vq import kmeans2

import epsot
from epsot.geometry import Multiscale
from epsot.kernels import cpu
from epsot.kernels.cpu.clouds import LOG2_E, compact_order
from epsot.kernels.cpu.sweeps import ROWS, SQUARE, exponentials, logits_tiled, peaks

N = 8000
DIMENSIONS, BLURS = (5, 10, 30, 50), (0.05, 0.2)
SHARES = (1e-3, 5e-3, 5e-2)  # eps over the mean cost: from moscot's default to that of wot
BUDGETS = (2.0**-31, 1e-4)  # of each row's sum: what the kernels leave out for d <= 3, and a tenth of the tolerance
MARGIN = 48  # bits that potentials may drift before a list is made again
MOST = 0.25  # of all pairs: longer lists are no cheaper than dense passes


def cells(n, d=50, noise=0.4):
    """Two samples of twenty clusters of unequal shares, the second one shifted a little."""
    rng, q = np.random.default_rng([9, 0]), 5
    centres, shapes = rng.normal(size=(20, q)), 0.2 * rng.normal(size=(20, q, q))
    shares = [rng.dirichlet(np.full(20, 3.0)) for _ in range(2)]
    straight = rng.normal(size=(q, d)) / np.sqrt(q)
    bent = rng.normal(size=(2 * q, d)) / np.sqrt(2 * q)
    turn = rng.normal(size=(q, 2 * q))

    def cloud(share, shift):
        labels = rng.choice(20, n, p=share)
        z = centres[labels] + np.einsum("nq,nqr->nr", rng.normal(size=(n, q)), shapes[labels]) + shift
        return (z @ straight + np.tanh(z @ turn) @ bent + noise * rng.normal(size=(n, d))).astype(np.float32)

    return cloud(shares[0], 0), cloud(shares[1], 0.1 * rng.normal(size=q))


def problems(n):
    """Names, clouds, blurs."""
    for d in DIMENSIONS:
        for family in ("uniform", "mixtures", "shells"):
            for blur in BLURS:
                yield f"{family}, d = {d}, blur {blur}", *clouds(Task(family, n, d, blur, False)), blur
    x, y = cells(n)
    mean = float(half_squares(x[:1000], y).mean())
    for share in SHARES:
        yield f"cells, eps {share:g} of the mean", x, y, math.sqrt(share * mean)


def half_squares(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.maximum(0, (np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)) / 2 - x @ y.T)


def clusters(x, k):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster is none
        return kmeans2(x, k, iter=5, minit="points", rng=np.random.default_rng(0))


def cluster_order(x):
    """Clusters of 64 points or so, one after the other, near ones together."""
    centroids, labels = clusters(x, len(x) // 64)
    return np.argsort(np.argsort(compact_order(np.nan_to_num(centroids)))[labels], kind="stable")


class Passes:
    """CPU seconds and softmins over n m pairs of one solve; smaller softmins count for their part."""

    def __init__(self, solve, n, softmin=cpu.Points.softmin):
        self.count = 0.0

        def counting(kernel, *arguments):
            self.count += kernel.shape[0] * kernel.shape[1] / n**2
            return softmin(kernel, *arguments)

        start = time.process_time()
        with mock.patch.object(cpu.Points, "softmin", counting):
            self.result = solve()
        self.seconds = time.process_time() - start


# ---- blocks ----


def shares_kept(x, y, blur, result):
    """Parts of all tiles, for two orders, and of all entries that a row needs; for both budgets, on a sixth of rows."""
    f, g, size = np.asarray(result.f, np.float64), np.asarray(result.g, np.float64), len(y) // 64 * 64
    kept = np.zeros((3, len(BUDGETS)))
    orders = [(compact_order(x), compact_order(y)), (cluster_order(x), cluster_order(y))]
    blocks = range(0, len(x) // 64, 6)
    for kind, (rows, columns) in enumerate(orders):
        for block in blocks:
            i, j = rows[64 * block : 64 * block + 64], columns[:size]
            weights = np.exp((f[i, None] + g[j] - half_squares(x[i], y[j])) / blur**2)
            weights /= weights.sum(axis=1, keepdims=True)
            tiles = np.sort(weights.reshape(64, -1, 64).sum(axis=2).max(axis=0))
            kept[kind] += [np.mean(np.cumsum(tiles) > budget) / len(blocks) for budget in BUDGETS]
            if kind == 0:
                tails = np.cumsum(np.sort(weights, axis=1), axis=1)
                kept[2] += [np.mean(tails > budget) / len(blocks) for budget in BUDGETS]
    return kept


# ---- lists ----


@numba.njit(nogil=True, error_model="numpy")
def collect(x, lines, weights, scale, offset, least, starts, index, terms):
    """The entries t[i, j] = weights[j] + scale <x[i], y[j]> + offset[i] >= least by rows, by the dense inner loop."""
    m, total = len(weights), 0
    rows, z, top = np.zeros((64, x.shape[1]), x.dtype), np.empty((4, 64), x.dtype), np.empty(4, x.dtype)
    part, counts = np.empty((1, 64), x.dtype), np.empty(64, np.int64)
    found, values = np.empty((64, m + 1), np.int32), np.empty((64, m + 1), x.dtype)
    for first in range(0, len(x), 64):
        count = min(64, len(x) - first)
        rows[:count], counts[:] = x[first : first + count], 0
        for group in range(m // 64):
            part[0] = weights[group * 64 : group * 64 + 64]
            for r in range(0, count, 4):
                logits_tiled(SQUARE, rows, r, lines, group, scale, part, 0, z)
                peaks(z, 64, top)
                for i in range(min(4, count - r)):
                    if top[i] + offset[first + r + i] >= least:
                        c = counts[r + i]
                        for j in range(64):
                            found[r + i, c], values[r + i, c] = group * 64 + j, z[i, j] + offset[first + r + i]
                            c += values[r + i, c] >= least
                        counts[r + i] = c
        for i in range(count):
            c = counts[i]
            size = (c + 63) // 64 * 64  # whole vectors in four lines
            if total + size > len(index):
                return -1
            index[total : total + c], terms[total : total + c] = found[i, :c], values[i, :c]
            index[total + c : total + size], terms[total + c : total + size] = 0, -1e30
            total += size
            starts[first + i + 1] = total
    return total


@numba.njit(nogil=True, error_model="numpy")
def stored_sums(starts, index, terms, ratio, weights, offset, sums):
    """sums[i] = sum over the list of 2^(ratio terms + weights[index] + offset[i])."""
    z, parts, shift = np.empty((4, 256), terms.dtype), np.empty(4), np.empty(4, terms.dtype)
    for i in range(len(sums)):
        parts[:], shift[:] = 0.0, offset[i]
        for s in range(starts[i], starts[i + 1], 1024):
            width = min(256, (starts[i + 1] - s) // 4)
            for r in range(4):
                line, here = z[r], s + r * width
                columns, logits = index[here : here + width], terms[here : here + width]
                for j in range(width):
                    line[j] = weights[np.uint32(columns[j])] + ratio * logits[j]
            exponentials(True, False, False, z, width, shift, 0, ROWS, parts, z)
        sums[i] = parts.sum()


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def product(x, y):
    total = x[0] * y[0]
    for k in range(1, len(x)):
        total += x[k] * y[k]
    return total


@numba.njit(nogil=True, error_model="numpy")
def gathered_sums(starts, index, x, y, scale, weights, offset, sums):
    """The same from the points: 2^(weights[j] + scale <x[i], y[j]> + offset[i])."""
    z, parts, shift = np.empty((4, 256), x.dtype), np.empty(4), np.empty(4, x.dtype)
    for i in range(len(sums)):
        parts[:], shift[:] = 0.0, offset[i]
        for s in range(starts[i], starts[i + 1], 1024):
            width = min(256, (starts[i + 1] - s) // 4)
            for r in range(4):
                line, here = z[r], s + r * width
                columns = index[here : here + width]
                for j in range(width):
                    c = np.uint32(columns[j])
                    line[j] = weights[c] + scale * product(x[i], y[c])
            exponentials(True, False, False, z, width, shift, 0, ROWS, parts, z)
        sums[i] = parts.sum()


class Lists:
    """A softmin in the place of that of the dense kernels, which keeps what it knows in the kernel."""

    def __init__(self, limit, least=1000):
        self.limit, self.least = limit, least
        self.dense = self.made = self.listed = 0
        self.entries = 0.0

    def softmin(self, kernel, h, eps, guess=None, *, dense=cpu.Points.softmin):
        if guess is None or min(kernel.shape) < self.least:
            self.dense += min(kernel.shape) >= self.least
            return dense(kernel, h, eps, guess)
        kept = kernel.__dict__.setdefault("lists", {"calls": 0, "eps": None, "now": None})
        kept["calls"], kept["now"] = (kept["calls"] + 1 if kept["now"] == eps else 1), eps
        # At a lower temperature a list is longer than it has to be: it is made again once that has come to last.
        if kept["eps"] is not None and (kept["eps"] == eps or kept["calls"] <= 2):
            out = self.by_list(kept, kernel, h, eps, guess)
            if out is not None:
                return out
        out = dense(kernel, h, eps, guess)
        self.dense += 1
        if kept["calls"] >= 2:
            self.make(kept, kernel, h, eps, out)
        return out

    def by_list(self, kept, kernel, h, eps, guess):
        """The softmin, or None where the list may lack too much."""
        ratio = kept["eps"] / eps
        moves, weights = LOG2_E * (guess - kept["f"]) / eps, LOG2_E * (h - ratio * kept["h"])
        top = weights.max()
        missing = math.log2(kernel.shape[1]) - kept["depth"] * ratio + moves.max() + top
        if missing > self.limit:
            return None
        sums = np.empty(kernel.shape[0])
        offset = (moves + top).astype(np.float32)
        stored_sums(*kept["list"], np.float32(ratio), (weights - top).astype(np.float32), offset, sums)
        if not 0 < sums.min() <= sums.max() < 2.0**100 or missing - math.log2(sums.min()) > self.limit + 1:
            return None
        self.listed += 1
        self.entries = max(self.entries, len(kept["list"][1]) / (kernel.shape[0] * kernel.shape[1]))
        return guess - eps * np.log(sums)

    def make(self, kept, kernel, h, eps, f):
        """The list around a softmin, unless it is too long on a sample of rows."""
        n, m = kernel.shape
        depth, kept["eps"] = -self.limit + math.log2(m) + MARGIN, None
        x, offset, weights, scale = operands(kernel, h, eps, f)

        def listed(rows, size):
            starts, index, terms = (
                np.zeros(len(rows) + 1, np.int64),
                np.empty(size, np.int32),
                np.empty(size, np.float32),
            )
            total = collect(x[rows], kernel.y_cloud.lines, weights, scale, offset[rows], -depth, starts, index, terms)
            return total, (starts, index[:total], terms[:total])

        share = listed(np.arange(0, n, n // 100), 101 * (m + 64))[0] / (101 * m)
        if share < MOST:
            total, lists = listed(np.arange(n), int(1.3 * share * n * m) + 64 * n)
            if total >= 0:
                self.made += 1
                kept.update(eps=eps, f=f.copy(), h=np.array(h), depth=depth, list=lists)


def operands(kernel, h, eps, f):
    """x, offset, weights, scale of the logits log2(e) (h[j] + (f[i] - C[i, j]) / eps) in float32."""
    weights, _, reference, scale, _ = kernel.weights(h, eps)
    offset = reference - 0.5 * scale * kernel.x_cloud.squares + LOG2_E * f / eps
    x = (kernel.x - kernel.x_cloud.centre).astype(np.float32)
    return x, offset.astype(np.float32), (weights - reference).astype(np.float32), np.float32(scale)


def least_seconds(function, repeats=5):
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def entry_costs(d, n=4096, length=512):
    """Time of an entry over that of a pair of the dense kernel: stored, gathered from the points, and to be made."""
    rng, eps = np.random.default_rng(0), 0.05
    x, y = ((rng.normal(size=(n, d)) / np.sqrt(d)).astype(np.float32) for _ in range(2))
    kernel = cpu.Points(x, y, epsot.PointCloud(x, y).cost, workers=1)
    h = np.full(n, -np.log(n))
    f = kernel.softmin(h, eps)
    rows, offset, weights, scale = operands(kernel, h, eps, f)
    starts = np.arange(n + 1) * length
    index = np.sort(rng.integers(0, n, (n, length)), axis=1).astype(np.int32).ravel()
    terms, sums, y = np.full(n * length, -3.0, np.float32), np.empty(n), np.ascontiguousarray(y)
    long = np.zeros(n + 1, np.int64), np.empty(n * length, np.int32), np.empty(n * length, np.float32)
    highest = np.float32(1e30)  # nothing is listed: what is measured is the search
    pair = least_seconds(lambda: kernel.softmin(h, eps, f)) / n**2
    ones = least_seconds(lambda: stored_sums(starts, index, terms, np.float32(1), weights, offset, sums))
    again = least_seconds(lambda: gathered_sums(starts, index, rows, y, scale, weights, offset, sums))
    search = least_seconds(lambda: collect(rows, kernel.y_cloud.lines, weights, scale, offset, highest, *long))
    return ones / (n * length) / pair, again / (n * length) / pair, search / n**2 / pair


# ---- starts ----


def cross_length(x, y):
    """The fourth root of the variance of <x, y>, tr cov(x) cov(y): for a larger blur a plan is nearly the product."""
    moves = (z.astype(np.float64) - z.mean(axis=0, dtype=np.float64) for z in (x, y))
    first, second = (np.einsum("nk,nl->kl", move, move) / len(move) for move in moves)
    return float(np.sum(first * second)) ** 0.25


def by_clusters(x, y, blur, k):
    labels = (clusters(z, k)[1] for z in (x, y))
    geometry = Multiscale(x, y, **dict(zip(("labels_x", "labels_y"), labels, strict=True)))
    return epsot.solve(geometry, eps=blur**2, workers=1)


def by_sample(x, y, blur, step=16):
    start = epsot.sinkhorn(x[::step], y[::step], blur=blur, workers=1)
    return epsot.sinkhorn(x, y, blur=blur, workers=1, init=start)


# ---- tables ----


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else N
    warnings.simplefilter("ignore", epsot.ConvergenceWarning)
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    posed = [row for row in problems(n) if word in row[0]]
    for _, x, y, blur in posed[:1] + posed[-1:]:  # compiles
        by_clusters(x[:1500], y[:1500], blur, 50)
        lists = Lists(math.log2(BUDGETS[1]))
        Passes(lambda x=x, y=y, blur=blur: epsot.sinkhorn(x[:1500], y[:1500], blur=blur), n, lists.softmin)

    print("Time over that of a dense pair\n\n   d  stored entry  gathered entry  pair searched for lists")
    for d in DIMENSIONS:
        print("{:>4}{:>14.2f}{:>16.1f}{:>25.1f}".format(d, *entry_costs(d)), flush=True)

    print(f"\nn = {n} a side. Kept at convergence, percent, for the budgets of 2^-31 and 1e-4:")
    print("tiles by median splits, tiles by k-means, entries of rows.\nPasses, and how many times fewer CPU seconds:")
    print("dense | start at the cross length | 200 clusters | 1000 clusters | every 16th point\n")
    for name, x, y, blur in posed:
        dense = Passes(lambda: epsot.sinkhorn(x, y, blur=blur, workers=1), n)  # noqa: B023
        kept = shares_kept(x, y, blur, dense.result)
        others = [
            lambda: epsot.sinkhorn(x, y, blur=blur, workers=1, diameter=cross_length(x, y)),  # noqa: B023
            lambda: by_clusters(x, y, blur, 200),  # noqa: B023
            lambda: by_clusters(x, y, blur, 1000),  # noqa: B023
            lambda: by_sample(x, y, blur),  # noqa: B023
        ]
        text = "".join(f"{100 * part:6.1f}" for part in kept.ravel()) + f" | {dense.count:4.0f}{mark(dense)}"
        for other in others:
            solved = Passes(other, n)
            text += f" | {solved.count:5.1f}{mark(solved)} {dense.seconds / solved.seconds:4.2f}x"
        print(f"{name:<30}{text}", flush=True)

    print("\nSolves with stored lists: passes dense + searches + by lists, the longest lists in percent of all pairs,")
    print("how many times fewer CPU seconds than dense. To 2^-31 | to 1e-4 | to 2^-31 after 200 clusters\n")
    for name, x, y, blur in (row for row in posed if row[0].endswith("mean") or row[0].endswith("0.05")):
        dense = Passes(lambda: epsot.sinkhorn(x, y, blur=blur, workers=1), n)  # noqa: B023
        text = ""
        for budget, k in ((BUDGETS[0], 0), (BUDGETS[1], 0), (BUDGETS[0], 200)):
            lists = Lists(math.log2(budget))

            def solve(k=k, x=x, y=y, blur=blur):
                return by_clusters(x, y, blur, k) if k else epsot.sinkhorn(x, y, blur=blur, workers=1)

            solved = Passes(solve, n, lists.softmin)
            text += f" | {lists.dense:4}{mark(solved)}+{lists.made:3}+{lists.listed:4} {100 * lists.entries:5.1f}"
            text += f" {dense.seconds / solved.seconds:4.2f}x"
        print(f"{name:<30}{text}", flush=True)


def mark(solved):
    """A solve that did not reach the tolerance is marked."""
    return " " if solved.result.success else "!"


if __name__ == "__main__":
    main()
