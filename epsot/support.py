"""One side of a problem: which of its points the solver sees, and the way back to all of them."""

from __future__ import annotations

from dataclasses import dataclass

from epsot.arrays import Place
from epsot.costs import Array
from epsot.lazy import cached_property


@dataclass(frozen=True)
class Support:
    """One side: which points have weight, and the way back."""

    size: int
    kept: Array | None = None  # indices of the points of positive weight; None: all of them
    dropped: Array | None = None  # the other indices
    place: Place | None = None

    @classmethod
    def of(cls, weights: Array, place: Place) -> Support:
        xp, size = place.xp, weights.shape[0]
        positive = weights > 0
        if bool(xp.all(positive)):
            return cls(size)
        return cls(size, xp.nonzero(positive)[0], xp.nonzero(~positive)[0], place)

    def restrict(self, values: Array) -> Array:
        """The values at the points of positive weight.  (size, ...) -> (kept, ...)"""
        return values if self.kept is None or self.place is None else self.place.xp.take(values, self.kept, axis=0)

    def scatter(self, kept: Array, dropped: Array | float) -> Array:
        """Back to the whole support; `dropped` are the values at weight zero.  (kept, ...) -> (size, ...)"""
        if self.kept is None or self.dropped is None or self.place is None:
            return kept
        xp = self.place.xp
        if isinstance(dropped, float):
            shape = (self.dropped.shape[0], *kept.shape[1:])
            dropped = xp.full(shape, dropped, dtype=kept.dtype, device=self.place.device)
        return xp.take(xp.concat([kept, dropped], axis=0), self.order, axis=0)

    @cached_property
    def order(self) -> Array:
        """Where each point stands in the kept ones followed by the dropped ones.  (size,)"""
        xp = self.place.xp  # type: ignore[union-attr]
        return xp.argsort(xp.concat([self.kept, self.dropped]))
