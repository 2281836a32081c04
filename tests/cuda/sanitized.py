"""Kernels of every form on ragged sizes, to be run under a sanitizer: python -m tests.cuda.sanitized [races]

races: for the thread sanitizer, to which each lane is a thread. Fewer forms, and blocks of fewer threads.
"""

from __future__ import annotations

import os
import sys
from itertools import chain

import numpy as np

from epsot.arrays import common_place
from epsot.costs import Cost, Euclidean, HalfSquare
from epsot.kernels import padded_matrices, padded_points, separable
from epsot.kernels.bursts import Progress, Rest, StopRule
from epsot.kernels.cuda import bursts as cuda_bursts
from epsot.kernels.cuda import modules, shapes
from epsot.kernels.cuda import vectors as cuda_vectors
from epsot.kernels.item_bursts import Records, StopRules
from epsot.kernels.lattice import Axis
from epsot.kernels.mixing import Weighed, no_memory
from epsot.kernels.vectors import WINDOW
from epsot.problems.many import Measures
from epsot.problems.measure import Measure
from tests.cuda import bridge, fake_cupy
from tests.cuda.instantiations import groups

os.environ["EPSOT_UNPROVEN"] = "1"  # bursts are looked at, too
fake_cupy.build_all = lambda code: None  # only what is used
USED = (
    "float, square, d = 2", "float, matrix, rows in memory", "float, matrix, columns in memory",
    "float, bursts, square, d = 2", "float, bursts, matrix", "double, euclidean, any d",
    "double, bursts, euclidean, any d", "items, square, d = 2", "items, square, any d", "items, matrix",
    "float, lattices", "double, lattices", "lengths, lattices", "vectors", "order",
)  # fmt: skip


def only(*labels: str) -> None:
    """A program is made of these groups, and one of each other that is asked for."""
    chosen = list(chain(*(groups()[label] for label in labels)))
    others = [names for label, names in groups().items() if label not in labels]
    fake_cupy.programs = lambda: [chosen, *others]  # type: ignore[assignment]


def use(kernel: bridge.Bridge, n: int, m: int, rng: np.random.Generator) -> None:
    """Every method."""
    k, h, v = rng.normal(size=n), rng.normal(size=m), rng.normal(size=(m, 5))
    f = kernel.softmin(h, 0.1)
    for guess in (f, f + 1e3):
        kernel.softmin(h, 0.1, guess)
    kernel.softmin_pair(k, h, 0.1)
    kernel.softmin_pair(k + 400, h, 0.1)
    kernel.apply(k, h, 0.1, v)
    kernel.T.apply(h, k, 0.1, rng.normal(size=(n, 1)))
    kernel.cost_apply(h)


def use_bursts(kernel: bridge.Bridge, n: int, m: int, steps: int, rng: np.random.Generator) -> None:
    """Every kind of steps, of one block and of two that share the vectors."""
    shared = shapes.burst_shares
    never = Rest(100, 0.0)
    terms = StopRule(0.1, steps, 0.0, never, never, 0.0, [1.0, 2.0])
    place = common_place(x=np.zeros(1))
    a, b = (
        Measure(fake_cupy.asarray(rng.random(k)), fake_cupy.asarray(rng.normal(size=k)), k / 2, 1.0, place)
        for k in (n, m)
    )
    zero, g = fake_cupy.asarray(np.zeros(n)), fake_cupy.asarray(rng.normal(size=m))
    for shares in (1, 2):
        shapes.burst_shares = lambda _, blocks, shares=shares: min(shares, blocks)
        bursts = kernel.kernel.bursts(a, b)
        directions = cuda_vectors.Directions(b.weights, b.log_weights, b.mass, 1.0, balanced=False)
        made = bursts.alternate(directions, zero + 1e9, g, Progress(np.inf, np.inf, 0), 100, terms)
        unbeaten = Progress(0.0, 0.0, 0)  # so that the last step and the next are in the same place
        bursts.alternate(directions, made.last.f, made.start, unbeaten, 100, terms)
        bursts.descend(zero, g, True, [0.2, 0.1, 0.1])
        if n == m:
            bursts.average(zero, True, terms)
            bursts.descend_self(zero, True, [0.2, 0.1, 0.1])
    shapes.burst_shares = shared


def use_items(n: int, m: int, d: int, steps: int, rng: np.random.Generator) -> None:
    """Both kinds of steps, of items of three sizes, one of which has none to make; the second time with directions."""
    place = common_place(x=fake_cupy.asarray(np.zeros(1)))
    weights = [rng.random((3, size)) + 0.1 for size in (n, m)]
    for w in weights:
        w[1, 1 + w.shape[1] // 2 :] = 0
    a, b = (Measures.of(fake_cupy.asarray(w), None, np.asarray([1.0, 2.0, np.inf]), place) for w in weights)
    x, y = (fake_cupy.asarray(rng.normal(size=(3, size, max(d, 1)))) for size in (n, m))
    kernel = padded_points(x, y, HalfSquare()) if d else padded_matrices(fake_cupy.asarray(rng.random((3, n, m))))
    bursts, never, none = kernel.bursts(a, b), Rest(100, 0.0), np.zeros(3)
    eps, counts = np.full(3, 0.1), np.asarray([steps, steps, 0])
    rules = StopRules(eps, counts, none, never, never, none, np.full((3, 16), np.nan))
    f, g = (fake_cupy.asarray(np.zeros((3, size))) for size in (n, m))
    side = Weighed(b.weights, b.masses, None, None, None)
    last, memory = (f, g, g, g), no_memory(g)
    for _ in range(2):
        record = Records(np.full(3, np.inf), np.full(3, np.inf), np.zeros(3, int))
        last, _, memory, *_ = bursts.alternate(side, memory, last, last, record, 100, rules)
    if n == m:
        bursts.average(f, f, f, np.asarray([True, False, True]), rules)


def use_vectors(m: int, steps: int, rng: np.random.Generator) -> None:
    """Every method."""
    b, g = fake_cupy.asarray(rng.random(m)), fake_cupy.asarray(rng.normal(size=m))
    ours = cuda_vectors.Vectors()
    ours.violation(b, ours.density(b, g, 0.1), g, 0.1, 1.0)
    ours.log_mass(b, g, 1.0)
    directions = ours.directions(b, g, 1.0, 1.0, balanced=False)
    for step in range(steps):
        directions.advance(g, g * 0.5, fake_cupy.asarray(0.5**step * rng.normal(size=m)), 1.0)


def use_lattices(n: int, m: int, rng: np.random.Generator) -> None:
    """Blocks of every size, lengths, circles, in one warp and several, and windows that have to grow."""
    place = common_place(x=fake_cupy.asarray(np.zeros(1)))
    line, other = Axis(n, m, 0.2, 0.0, 1.0, 1.1, None), Axis(2, 3, 0.0, 0.0, 1.0, 1.0, None)
    circle = Axis(n, m, 0.2, 0.0, 1.0, 1.0, float(max(m, 2)))
    torn = np.where(np.arange(m) // 7 % 2 == 0, 0.0, -1e3)[:, None] + rng.normal(size=(m, 3))
    for kind, axes in (("squares", (line, other)), ("lengths", (line, other)), ("squares", (circle, other))):
        for dtype in (np.float32, np.float64):
            kernel = separable(axes, kind, 0.7, place, np.dtype(dtype))
            for eps in (30.0, 1.0, 0.01):
                kernel.softmin(fake_cupy.asarray(torn.reshape(-1)), eps)


def few_threads() -> None:
    """Bursts of two warps a block: the sanitizer's work grows with the square of the threads."""
    code, threads = modules.source(), "constexpr int BURST_THREADS = {};"
    assert threads.format(shapes.BURST_THREADS) in code
    modules.source = lambda: code.replace(threads.format(shapes.BURST_THREADS), threads.format(64))  # type: ignore[assignment]
    cuda_bursts.BURST_THREADS = 64


def main(races: bool) -> None:
    only(*(label for label in USED if not (races and label.startswith("items, square"))))
    rng = np.random.default_rng(0)
    clouds: list[tuple[Cost, int, type, int]] = [  # the last: columns from which there are boxes
        (HalfSquare(), 2, np.float32, shapes.BOXES_FROM),
        (HalfSquare(), 2, np.float32, 0),
        (Euclidean(), 17, np.float64, 0),
    ]
    sizes, steps = ((1, 1), (259, 131), (3, 600), (65, 65)), WINDOW + 3  # more than directions are kept
    if races:
        few_threads()
        sizes, steps = ((300, 300),), 3
    with fake_cupy.installed():
        for cost, d, dtype, boxes_from in clouds:
            shapes.BOXES_FROM = boxes_from
            for n, m in sizes:
                x, y = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(m, d)).astype(dtype)
                kernel = bridge.points(x, y, cost)
                use(kernel, n, m, rng)
                kernel.source().softmin_self(rng.normal(size=n), 0.1)
                kernel.cost_gradient(rng.normal(size=n), rng.normal(size=m), 0.1)
                use_bursts(kernel, n, m, steps, rng)
                if n * m <= shapes.ITEM_PAIRS:
                    use_items(n, m, d, steps, rng)
        for n, m in sizes:
            kernel = bridge.matrix(rng.random((n, m)).astype(np.float32))
            use(kernel, n, m, rng)
            use_bursts(kernel, n, m, steps, rng)
            use_items(min(n, 65), min(m, 65), 0, steps, rng)
            use_lattices(n, m, rng)
        if not races:
            use_lattices(shapes.LATTICE_ROOM + 1, shapes.LATTICE_ROOM + 5, rng)
        for m in (1, 513, shapes.ONE_BLOCK + 1):
            use_vectors(m, steps, rng)
    print(f"{len(fake_cupy.launches)} launches")


if __name__ == "__main__":
    main(sys.argv[1:] == ["races"])
