"""One side of a problem: which of its points the solver sees, and the way back to all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from epsot.arrays import Place
from epsot.costs import Array
from epsot.lazy import Lean, cached_property


@dataclass(frozen=True)
class Support(Lean):
    """One side: which points the solver sees, and the way back.

    It sees none of weight zero, and unbalanced none without a partner, to which no pair of positive weights is allowed.
    """

    size: int
    kept: Array | None = None  # indices of the points that the solver sees; None: all of them
    dropped: Array | None = None  # of those of weight zero; None: there are none
    place: Place | None = None
    alone: Array | None = None  # of those of positive weight without a partner; None: there are none
    alone_weights: Array | None = None
    here: slice | None = None  # those of this rank, of all points; None: they are all

    @classmethod
    def of(cls, weights: Array, place: Place) -> Support:
        xp, size = place.xp, weights.shape[0]
        positive = weights > 0
        if bool(xp.all(positive)):
            return cls(size)
        return cls(size, xp.nonzero(positive)[0], xp.nonzero(~positive)[0], place)

    def without(self, alone: Array | None, weights: Array, place: Place) -> tuple[Support, Array]:
        """Some of the kept points set aside, by a mask, and the weights of the others.  (kept,), (kept,)"""
        if alone is None:
            return self, weights
        xp = place.xp
        kept = xp.arange(self.size, device=place.device) if self.kept is None else self.kept
        others, aside = xp.nonzero(~alone)[0], xp.nonzero(alone)[0]
        side = Support(
            self.size, xp.take(kept, others), self.dropped, place, xp.take(kept, aside), xp.take(weights, aside),
            self.here,
        )  # fmt: skip
        return side, xp.take(weights, others)

    def shared(self, here: slice | None) -> Support:
        """The same, of which such points are those of this rank."""
        return self if here is None else replace(self, here=here)

    def own(self, values: Array) -> Array:
        """The values at the points of this rank.  (size, ...) -> (here, ...)"""
        return values if self.here is None else values[self.here, ...]

    @cached_property
    def lost(self) -> float:
        """The mass of the points without a partner."""
        return 0.0 if self.alone_weights is None else float(self.place.xp.sum(self.alone_weights))  # type: ignore[union-attr]

    def restrict(self, values: Array) -> Array:
        """The values at the points that the solver sees.  (size, ...) -> (kept, ...)"""
        return values if self.kept is None or self.place is None else self.place.xp.take(values, self.kept, axis=0)

    def scatter(self, kept: Array, dropped: Array | float, alone: Array | float = 0.0) -> Array:
        """Back to the whole support, with values at weight zero and without a partner.  (kept, ...) -> (size, ...)"""
        if self.place is None:
            return kept
        xp, parts = self.place.xp, [kept]
        for where, values in ((self.dropped, dropped), (self.alone, alone)):
            if where is None:
                continue
            if isinstance(values, float):
                shape = (where.shape[0], *kept.shape[1:])
                values = xp.full(shape, values, dtype=kept.dtype, device=self.place.device)
            parts.append(values)
        return xp.take(xp.concat(parts, axis=0), self.order, axis=0)

    @cached_property
    def order(self) -> Array:
        """Where each point stands in the kept ones followed by the others.  (size,)"""
        xp = self.place.xp  # type: ignore[union-attr]
        return xp.argsort(xp.concat([part for part in (self.kept, self.dropped, self.alone) if part is not None]))
