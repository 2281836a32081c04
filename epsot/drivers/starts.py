"""What a solve may start from: results, potentials, records of a callback. None changes what it converges to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj, is_numpy_namespace

from epsot.arrays import Place, as_real
from epsot.costs import Array
from epsot.drivers.intermediate import BatchIntermediate, Intermediate
from epsot.drivers.one_by_one import BatchSoFar
from epsot.drivers.options import Options
from epsot.drivers.records import BatchRecord, Record
from epsot.geometry.grid import Grid
from epsot.geometry.rows import Rows, fitted, vectors_of
from epsot.geometry.separables import flat_weights
from epsot.kernels.batches import Floats
from epsot.lists import is_ragged
from epsot.problems.batch import Batch
from epsot.problems.instance import Instance
from epsot.problems.support import Support
from epsot.results.debiased import DivergenceResult
from epsot.results.items import Results
from epsot.results.potential import Potential
from epsot.results.result import SinkhornResult

FAR = 1e3  # times the costs: potentials from which no solve should start ...
FAR_OF_ITSELF = 30.0  # ... nor one of a measure and itself, which needs few steps from none at all

RECORDS = (Record, BatchRecord, Intermediate, BatchIntermediate, BatchSoFar)


@dataclass(frozen=True, eq=False)
class Given:
    """Potentials over the points of the user, in float64, and the temperature to begin with."""

    f: Array  # (n,)
    g: Array  # (m,)
    eps: float

    @property
    def T(self) -> Given:
        """Seen from the other side."""
        return Given(self.g, self.f, self.eps)


@dataclass(frozen=True, eq=False)
class ManyGiven:
    """The same of the items of a batch."""

    f: Rows
    g: Rows
    eps: Floats  # of the shape of the batch

    def _item(self, k: int) -> Given:
        return Given(self.f.item(k), self.g.item(k), float(self.eps.flat[k]))


Start = SinkhornResult | DivergenceResult | Given | None


def is_start(init: Any) -> bool:
    """Whether this may be one, at first sight."""
    pair = isinstance(init, tuple | list) and len(init) == 2
    return pair or isinstance(init, (SinkhornResult, DivergenceResult, Results, *RECORDS))


def as_start(init: Any, instance: Instance) -> Start:
    """What the user has given, checked against the problem, in its library; results stay results."""
    if init is None or isinstance(init, SinkhornResult | DivergenceResult):
        found: Start = brought(init, instance.place)
        return found
    if isinstance(init, Results | BatchRecord | BatchIntermediate | BatchSoFar):
        raise TypeError(
            f"`init` must be the result of one problem, got a batch of shape {init.shape}; pass one item, `init[k]`"
        )
    pair, eps = pair_of(init, instance.eps)
    sides, supports = (instance.side_a, instance.side_b), instance.geometry.supports
    potentials = []
    for name, given, side, support in zip(("init[0]", "init[1]"), pair, sides, supports, strict=True):
        array = real(name, given, instance.place)
        if isinstance(init, tuple | list):
            array = of_all_ranks(array, side, support, instance)
        if tuple(array.shape) != support:
            what = "one number a point" if len(support) == 1 else "that of its grid"
            raise ValueError(f"`{name}` must have shape {support}, {what}, got {tuple(array.shape)}")
        array = instance.place.xp.reshape(array, (-1,))
        if not bool(instance.place.xp.all(instance.place.xp.isfinite(side.restrict(array)))):
            raise ValueError(f"`{name}` must be finite where there is weight; without it the solve starts by itself")
        potentials.append(array)
    return Given(potentials[0], potentials[1], float(eps))


def of_all_ranks(block: Array, side: Support, support: tuple[int, ...], instance: Instance) -> Array:
    """The potential of all ranks, of the block of one; a process alone has all of it."""
    if side.here is None:
        return block
    share = instance.comm.share(math.prod(block.shape))
    whole = share.joined(instance.place.xp.reshape(block, (-1,)))
    fits = share.here == side.here and share.total == side.size
    return instance.place.xp.reshape(whole, support) if fits else whole


def as_starts(init: Any, batch: Batch) -> Any:
    """The same for many problems: a result or results, or the potentials of all items."""
    if init is None or isinstance(init, SinkhornResult | DivergenceResult):
        return init
    if isinstance(init, Results):
        if init.shape != batch.shape:
            raise ValueError(
                f"`init` must be a result of as many problems, {batch.shape}, or of one, got those of {init.shape}"
            )
        return init
    pair, eps = pair_of(init, batch.eps)
    rows = [
        potentials_of(name, flat_potentials(name, given, grid), sizes, batch.place)
        for name, given, sizes, grid in zip(
            ("init[0]", "init[1]"), pair, batch.geometry.sizes, batch.geometry.grids, strict=True
        )
    ]
    for name, found, weights in zip(("init[0]", "init[1]"), rows, (batch.a, batch.b), strict=True):
        check_potentials(name, found, weights, batch)
    try:
        return ManyGiven(rows[0], rows[1], np.broadcast_to(np.asarray(eps, np.float64), batch.shape))
    except ValueError:
        raise ValueError(f"`init` must be a record of {batch.shape} problems, got {np.shape(eps)}") from None


def pair_of(init: Any, eps: Any) -> tuple[tuple[Any, Any], Any]:
    """Potentials and their temperature; of a pair without one that of the target."""
    if isinstance(init, Intermediate | BatchIntermediate | BatchSoFar):
        init = init.record()
    if isinstance(init, Record):
        return init.pair, init.eps
    if isinstance(init, BatchRecord):
        return init.sides, init.eps
    f, g = init
    return (f, g), eps


def arrived(given: Any, place: Place) -> Any:
    """An array of any library where the work is done, or one of the user; anything else as it is."""
    if is_array_api_obj(given) and (place.home is None or array_namespace(given) is not place.home.xp):
        return place.received(given)
    return given


def real(name: str, given: Any, place: Place) -> Array:
    """Numbers of any library in float64."""
    return place.xp.astype(as_real(name, arrived(given, place), place), place.xp.float64)


def flat_potentials(name: str, given: Any, grid: Grid | None) -> Any:
    """Those over a grid, (..., *shape), as over its points, (..., n); others, and those of records, as they are."""
    if not isinstance(given, Rows):
        return flat_weights(name, given, grid)
    if (given.grid and given.grid.shape) != (grid and grid.shape):
        raise ValueError(f"`init` must be a record over grids of the shapes of these, got one over {given.grid}")
    return given


def potentials_of(name: str, given: Any, sizes: np.ndarray, place: Place) -> Rows:
    """The potentials of one side of all items, (..., n), or a list of (n_k,)."""
    if isinstance(given, Rows):
        rows = Rows(real(name, given.values, place), given.first, given.sizes, given.ragged, given.length)
    else:
        here = [arrived(z, place) for z in given] if is_ragged(given) else arrived(given, place)
        rows = vectors_of(name, here, place, "potential")
    return fitted(name, rows, sizes, "potential")


def check_potentials(name: str, rows: Rows, weights: Rows, batch: Batch) -> None:
    """Raise where a potential with weight is not finite; with forbidden pairs one without a partner may be infinite."""
    xp, z = batch.place.xp, rows.in_order(batch.place)
    bad = xp.isnan(z) if batch.geometry.forbidding() else ~xp.isfinite(z)
    if bool(xp.any(bad & (weights.in_order(batch.place) > 0))):
        raise ValueError(f"`{name}` must be finite where there is weight; without it the solve starts by itself")


def is_of_numpy(place: Place) -> bool:
    return place.home is None and is_numpy_namespace(place.xp)


def brought(init: Any, place: Place) -> Any:
    """A result on NumPy arrays, as all are that come from files, in the library of a place; any other as it is."""
    if init is None or not is_of_numpy(init.place) or init.place.xp is place.xp:
        return init
    try:
        return type(init)._read(init._written(), place)
    except TypeError:  # a cost of the user's own, which may be written for NumPy alone
        return init


def check_start(init: SinkhornResult, instance: Instance) -> tuple[bool, bool]:
    """Of which sides its potentials are over the same points; an error where the result is none to start from."""
    home, past_home = instance.place.user, init.place.user
    if not (is_of_numpy(init.place) and init.place.xp is instance.place.xp):  # those serve the views of NumPy, too
        if past_home.xp is not home.xp:
            raise TypeError("`init` must be a result of the same array library as the points, or of NumPy")
        if str(past_home.device) != str(home.device):
            raise TypeError(f"`init` must be on the device of the points, got one on {past_home.device}")
    return instance.geometry.same_sides(init.instance.geometry)


def warm_start(init: SinkhornResult | Given, instance: Instance, options: Options) -> tuple[Array, Array] | None:
    """Potentials over the points of positive weight.

    None where they are no start: not finite, or so large that float64 would not resolve what has to be added to them.
    """
    f, g = (init.f, init.g) if isinstance(init, Given) else extended(init, instance)
    xp, own = instance.place.xp, instance.problem.own
    problem, eps = instance.problem, instance.eps
    most = max(problem.scale, eps)
    if options.start > most:
        most = max(most, min(options.start, instance.core.scale()))  # a `diameter` may be anything
    most *= FAR_OF_ITSELF if own else FAR
    most = problem.b.dampen(most, eps)  # a short reach makes potentials small
    if isinstance(init, Given):  # of what has no weight anything may be said
        f, g = instance.side_a.restrict(f), instance.side_b.restrict(g)
    if not bool(xp.all(xp.abs(g) <= most)) or not bool(xp.all(xp.isfinite(f))):
        return None
    if not isinstance(init, Given):
        f, g = instance.side_a.restrict(f), instance.side_b.restrict(g)
    if problem.balanced and not own:  # a large constant would take the digits of all that is added to it
        constant = problem.b.dot(g) / problem.b.mass
        f, g = f + constant, g - constant
    return f, g


def extended(init: SinkhornResult, instance: Instance) -> tuple[Array, Array]:
    """The potentials of an earlier result over the points of a problem; where the points differ, one softmin."""
    init = brought(init, instance.place)
    same, xp, own = check_start(init, instance), instance.place.xp, instance.problem.own

    def potential(side: Potential, number: int, needed: bool) -> Array:
        fits = init.instance.geometry.shape[number] == instance.geometry.shape[number]
        if same[number] or (fits and not needed):
            return side.potential
        points = instance.geometry.nodes[number]  # type: ignore[index]  # else both sides are the same
        try:
            return side.potential_at(points)
        except ValueError:  # points at which the cost of the earlier result is not defined
            return xp.full(instance.geometry.shape[number], xp.nan, dtype=xp.float64, device=instance.place.device)

    # An update of both sides begins with f from g, and takes the earlier f for a guess; a self-transport has f alone.
    f = potential(init.source, 0, needed=own)
    return f, f if own else potential(init.target, 1, needed=True)
