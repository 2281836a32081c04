"""Many steps of all items of a batch in one launch, a block an item: `epsot.kernels.item_bursts`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from epsot.costs import Array
from epsot.kernels.cuda import shapes
from epsot.kernels.cuda.bursts import (
    ALTERNATE_FIELDS,
    ALTERNATE_HEAD,
    AVERAGE_FIELDS,
    AVERAGE_HEAD,
    LOG2_E,
    RETREATED,
    STAGES,
    Fields,
    pairs_name,
)
from epsot.kernels.cuda.fused import on_device
from epsot.kernels.cuda.modules import launch
from epsot.kernels.cuda.shapes import ITEM_THREADS
from epsot.kernels.cuda.vectors import MARGINALS, ROWS, SUMS, VALUES
from epsot.kernels.item_bursts import ManyAverages, ManyIterates, Measured, Records, Sides, Steps, StopRules
from epsot.kernels.mixing import Memory, Weighed, norm_weights
from epsot.kernels.vectors import BENT, DEPENDENT, LEAP, LONGEST

MOST_ITEMS = 65_535  # the limit of a grid's second and third axis
ALTERNATE_ITEM = Fields("x y " + ALTERNATE_FIELDS[0], *ALTERNATE_FIELDS[1:])
AVERAGE_ITEM = Fields("x " + AVERAGE_FIELDS[0], *AVERAGE_FIELDS[1:])


class Packed(NamedTuple):
    """The costs of all items as the kernels read them: coordinates, or matrices with their strides, in float64."""

    x: Array
    y: Array
    x_first: np.ndarray  # (B,) where those of an item begin
    y_first: np.ndarray
    n: np.ndarray  # (B,) points of an item
    m: np.ndarray
    kind: int
    factor: float
    d: int
    down: int = 0
    right: int = 0

    @property
    def name(self) -> str:
        """The form, as C++: all of it float64, as the sweeps of a batch are."""
        return pairs_name("double", self.kind, self.d)


def packed_cloud(cupy: Any, cloud: Array, sizes: np.ndarray) -> tuple[Array, np.ndarray]:
    """Clouds (B, n, d), of which the first points count, as (d, size) one after the other, and where each begins.

    A cloud of all items, (1, n, d), is packed once; then all have its size.
    """
    count, n, d = cloud.shape
    turned = cupy.swapaxes(cloud, 1, 2)
    if count == 1 or (sizes == n).all():
        return cupy.ascontiguousarray(turned), np.arange(len(sizes)) * (d * n if count > 1 else 0)
    inside = cupy.asarray(np.arange(n)[None, :] < sizes[:, None])[:, None, :]
    return turned[cupy.broadcast_to(inside, turned.shape)], d * (np.cumsum(sizes) - sizes)


def sizes_of(cupy: Any, weights: Array) -> np.ndarray:
    """Up to which point items have weight; one at least.  (B, n) -> (B,) on the host"""
    numbers = cupy.arange(1, weights.shape[1] + 1)[None, :]
    found: np.ndarray = cupy.where(weights > 0, numbers, 1).max(axis=1).get()
    return found


class ItemBursts:
    """Many steps of each item of a batch, on one device."""

    def __init__(self, packed: Packed, a: Sides, b: Sides) -> None:
        self.packed, self.a, self.b = packed, a, b

    @property
    def cupy(self) -> Any:
        """The library. Not kept: modules cannot be pickled, nor copied."""
        import cupy

        return cupy

    @property
    def device(self) -> Any:
        return self.packed.x.device

    def launch(self, name: str, *arguments: Any) -> None:
        """A block for each item."""
        count = len(self.packed.n)
        rows = min(count, MOST_ITEMS)
        numbers = (np.int64(z) if isinstance(z, int) else z for z in arguments)
        launch(self.cupy, name, (1, rows, -(-count // rows)), ITEM_THREADS, (*numbers,))

    def told(self, fields: Fields, rules: StopRules, **values: Any) -> Array:
        """The structs of all items, for values of an item or of all."""
        packed = self.packed
        table = np.zeros(len(packed.n), dtype=fields.columns)
        common = {
            "x": packed.x_first, "y": packed.y_first, "n": packed.n, "m": packed.m, "d": packed.d, "down": packed.down,
            "right": packed.right, "scale": LOG2_E * packed.factor / rules.eps, "eps": rules.eps, "tol": rules.tol,
            "steps": np.minimum(rules.steps, shapes.BURST_STEPS), "still": rules.still.steps,
            "still_factor": rules.still.factor, "shares": 1,
        }  # fmt: skip
        for name in fields.names:
            table[name] = values[name] if name in values else common[name]
        return self.cupy.asarray(table.view(np.uint8))

    def errors(self, rules: StopRules) -> tuple[Array, int, np.ndarray]:
        """Room for the errors of all items beside those before, of which columns there are some, and each has some."""
        last = rules.errors[:, -max(rules.still.steps, rules.slow.steps) :]
        past, most = last.shape[1], min(int(rules.steps.max()), shapes.BURST_STEPS)
        errors = self.cupy.empty((len(last), past + most), dtype=np.float64)
        errors[:, :past] = self.cupy.asarray(last)
        return errors, past, np.count_nonzero(~np.isnan(last), axis=1)

    def read(self, numbers: Array, errors: Array, past: int, rules: StopRules) -> tuple[np.ndarray, Measured]:
        """What the items have left, (values, B) and their errors: the one reading of all their steps."""
        head = numbers.shape[1]
        found = self.cupy.concatenate([numbers, errors[:, past:]], axis=1).get()
        counts = np.zeros(len(found), int)
        made = rules.steps > 0
        counts[made] = found[made, 0]
        return found[:, :head].T, Measured(found[:, head:], counts)

    @on_device
    def alternate(
        self, side: Weighed, memory: Memory, last: Steps, best: Steps, record: Records, patience: int, rules: StopRules
    ) -> ManyIterates:
        cupy, packed, a, b = self.cupy, self.packed, self.a, self.b
        (count, n), m = a.weights.shape, b.weights.shape[1]
        errors, past, known = self.errors(rules)
        width = 3 * n + 12 * m + STAGES * VALUES + (2 + 2 * ROWS) * m
        work = cupy.empty((count, width), dtype=np.float64)
        numbers = cupy.empty((count, ALTERNATE_HEAD), dtype=np.float64)
        eased = np.zeros(count, bool) if side.eased is None else side.eased[:, 0].get()
        told = self.told(
            ALTERNATE_ITEM, rules, rho_a=a.rho, rho_b=b.rho, mass=b.mass, size=0, expected=0,
            lowest_error=record.error, lowest_norm=record.norm, waited=record.waited, patience=patience,
            bent=BENT, dependent=DEPENDENT, leap=LEAP, longest=LONGEST, restless=rules.give_up_above,
            slow=rules.slow.steps, slow_factor=rules.slow.factor, balanced=np.isinf(a.rho) & np.isinf(b.rho),
            eased=eased, moved=0, directions=0, slot=0, known=known,
        )  # fmt: skip
        weights = cupy.ascontiguousarray(norm_weights(side))
        ease = b.weights if side.scale is None else cupy.ascontiguousarray(side.scale)
        last, best = (tuple(z.copy() for z in step) for step in (last, best))
        moves, changes, taken, result, residual, size, expected, there = (z.copy() for z in memory)
        self.launch(
            f"alternate_items<{packed.name}, {ROWS}>",
            packed.x, packed.y, a.log_weights, b.log_weights, b.weights, weights, ease, *last, *best,
            moves, changes, result, residual, taken, there, size, expected, work, numbers, errors, told,
            count, n, m, width, past, errors.shape[1],
        )  # fmt: skip
        found, measured = self.read(numbers, errors, past, rules)
        made = measured.made
        new = (np.where(made, z, old) for z, old in zip(found[6:9], record, strict=True))
        return ManyIterates(
            last, best, Memory(moves, changes, taken, result, residual, size, expected, there),
            Records(*new), made & (found[1] == RETREATED), measured,
        )  # fmt: skip

    @on_device
    def average(self, f: Array, updated: Array, mean: Array, fresh: np.ndarray, rules: StopRules) -> ManyAverages:
        cupy, packed, (count, n) = self.cupy, self.packed, self.a.weights.shape
        errors, past, known = self.errors(rules)
        width = 5 * n + SUMS * MARGINALS
        work = cupy.empty((count, width), dtype=np.float64)
        numbers = cupy.empty((count, AVERAGE_HEAD), dtype=np.float64)
        told = self.told(AVERAGE_ITEM, rules, rho=self.a.rho, fresh=fresh, known=known)
        f, updated, mean = (z.copy() for z in (f, updated, mean))
        self.launch(
            f"average_items<{packed.name}>",
            packed.x, self.a.log_weights, f, updated, mean, work, numbers, errors, told,
            count, n, width, past, errors.shape[1],
        )  # fmt: skip
        return ManyAverages(f, updated, mean, self.read(numbers, errors, past, rules)[1])
