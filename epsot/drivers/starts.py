"""Earlier results to start from. None of them changes what is converged to."""

from __future__ import annotations

from epsot.costs import Array
from epsot.drivers.options import Options
from epsot.problems.instance import Instance
from epsot.results.potential import Potential
from epsot.results.result import SinkhornResult

FAR = 1e3  # times the costs: potentials from which no solve should start ...
FAR_OF_ITSELF = 30.0  # ... nor one of a measure and itself, which needs few steps from none at all


def check_start(init: SinkhornResult, instance: Instance) -> tuple[bool, bool]:
    """Of which sides its potentials are over the same points; an error where the result is none to start from."""
    home, past_home = instance.place.user, init.instance.place.user
    if past_home.xp is not home.xp:
        raise TypeError("`init` must be a result of the same array library as the points")
    if str(past_home.device) != str(home.device):
        raise TypeError(f"`init` must be on the device of the points, got one on {past_home.device}")
    return instance.geometry.same_sides(init.instance.geometry)


def warm_start(init: SinkhornResult, instance: Instance, options: Options) -> tuple[Array, Array] | None:
    """The potentials of an earlier result over the points of positive weight; where the points differ, one softmin.

    None where they are no start: not finite, or so large that float64 would not resolve what has to be added to them.
    """
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
    g = f if own else potential(init.target, 1, needed=True)
    problem, eps = instance.problem, instance.eps
    most = max(problem.scale, eps)
    if options.start > most:
        most = max(most, min(options.start, instance.core.scale()))  # a `diameter` may be anything
    most *= FAR_OF_ITSELF if own else FAR
    most = problem.b.dampen(most, eps)  # a short reach makes potentials small
    if not bool(xp.all(xp.abs(g) <= most)) or not bool(xp.all(xp.isfinite(f))):
        return None
    f, g = instance.side_a.restrict(f), instance.side_b.restrict(g)
    if problem.balanced and not own:  # a large constant would take the digits of all that is added to it
        constant = problem.b.dot(g) / problem.b.mass
        f, g = f + constant, g - constant
    return f, g
