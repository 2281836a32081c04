"""What has to hold of a result, whatever was asked: checks are functions that yield complaints, of what does not."""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import epsot
from epsot.status import Status
from tests.fuzz_oracle import Truth
from tests.fuzz_problems import Problem

UNRESOLVED = Status.STALLED, Status.DIVERGED
PrecisionWarning: Any = getattr(epsot, "PrecisionWarning", ())
BRIEF = ("value", "f", "g", "marginal_error", "dual", "primal", "gap", "grad_a", "grad_b", "message", "eps", "rho")


class Case(NamedTuple):
    """A result, or a part of it, and what is true."""

    problem: Problem
    result: Any
    outputs: dict[str, Any]  # by name
    said: list[Any]  # warnings of the solve and the reading
    truth: Truth

    @property
    def status(self) -> str:
        return str(self.result.status.name)

    @property
    def asked(self) -> float | None:
        """`tol`."""
        tol: float | None = self.problem.options["tol"]
        return tol

    @property
    def tol(self) -> float:
        """What an error is to be compared with; where nothing was asked, the default."""
        return max(1e-3 if self.asked is None else self.asked, 8 * self.truth.noise)

    @property
    def rounding(self) -> float:
        """What float64 leaves of the sums; potentials to start from may be large, and take digits."""
        started = self.problem.warm is not None or len(self.problem.moves) > 1
        return (2048 if started else 64) * 2.0**-53 * self.truth.terms

    @property
    def unit(self) -> float:
        return 2.0**-24 if self.problem.single else 2.0**-53


def readings(problem: Problem, result: Any) -> dict[str, Callable[[], Any]]:
    """Every public output, by name."""
    names = BRIEF + (("transport_cost",) if hasattr(type(result), "transport_cost") else ())
    plan, (n, m) = result.plan, result.plan.shape
    found: dict[str, Callable[[], Any]] = {
        "repr": lambda: repr(result) + repr(plan),
        "plan.sum": lambda: plan.sum(),
        "plan.rows_sum": lambda: plan.sum(axis=1),
        "plan.columns_sum": lambda: plan.sum(axis=0),
        "plan.matmul": lambda: plan @ np.ones((m, 2), plan.dtype),
        "plan.T.matmul": lambda: plan.T @ np.ones(n, plan.dtype),
        "plan.rows": lambda: plan.rows([0, n - 1]),
        "plan.dense": lambda: plan.to_dense(),
        "plan.sparse": lambda: plan.to_sparse(mass=0.9).data,
        "plan.sample": lambda: np.stack(plan.sample(5, rng=0)),
        "plan.operator": lambda: plan.as_linear_operator() @ np.ones(m),
        "plan.map": lambda: plan.barycentric_map(np.linspace(-1, 1, m)),
    }
    if hasattr(plan, "argmax"):
        found["plan.argmax"] = lambda: plan.argmax(axis=1)
    if problem.cost != "matrix":
        names += "grad_x", "grad_y", "displacement"
        elsewhere = np.ascontiguousarray(problem.sides[1][:3])
        found["potential"] = lambda: result.potential(elsewhere)
        found["transport"] = lambda: result.transport(elsewhere)
    return {name: lambda name=name: getattr(result, name) for name in names} | found


def documented(error: Exception) -> bool:
    """An error that names an argument."""
    return isinstance(error, ValueError | TypeError) and "`" in str(error)


def kind_of(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.filename.rpartition('epsot/')[2]}:{place.lineno}: {error}"


def unexpected(said: list[Any], problem: Problem) -> Iterator[str]:
    """Warnings that nobody has announced."""
    for warning in {(w.filename, w.lineno): w for w in said}.values():
        precise = PrecisionWarning and issubclass(warning.category, PrecisionWarning) and problem.single
        if not (precise or issubclass(warning.category, epsot.ConvergenceWarning)):
            place = f"{warning.filename.rpartition('epsot/')[2]}:{warning.lineno}"
            yield f"{warning.category.__name__} at {place}: {warning.message}"


def check_outcome(case: Case) -> Iterator[str]:
    """Counts and words fit what was asked."""
    result, most = case.result, case.problem.options["max_iter"]
    if not (0 if case.truth.posed.idle else 1) <= result.nit <= most:
        yield f"nit {result.nit} of max_iter {most}"
    counts = [check.nit for check in result.history]
    if counts != sorted(set(counts)) or (counts and not 1 <= counts[0] <= counts[-1] <= result.nit):
        yield f"history counts {counts[:3]}...{counts[-3:]}, nit {result.nit}"
    allowed = {Status.SCHEDULE_ENDED, Status.DIVERGED}
    if case.asked is None and 2.0**-53 * case.truth.exponent > 0.02:  # no digits are left
        allowed.add(Status.STALLED)
    if (result.status in allowed) != (case.asked is None) and result.status is not Status.DIVERGED:
        yield f"{case.status} with tol {case.asked}"
    if result.success and not result.marginal_error <= case.asked:
        yield f"success at {result.marginal_error:.2e} with tol {case.asked:.2e}"


def check_unresolved(case: Case) -> Iterator[str]:
    """Precision is blamed only where it is to blame."""
    posed, potentials = case.truth.posed, (case.truth.f, case.truth.g)
    rounding = 1e3 * case.unit * max(1.0, case.truth.exponent)
    created = any(np.any(-f / rho > 300) for f, rho in zip(potentials, posed.rho, strict=True))  # beyond float64
    tiny = case.problem.single and posed.eps < 1e-36  # as no number of float32
    if (
        case.result.status in UNRESOLVED
        and case.asked is not None
        and rounding < case.asked
        and not created
        and not tiny
    ):
        yield f"{case.status} at {case.result.marginal_error:.1e}, where rounding is {rounding:.1e}"


def check_error(case: Case) -> Iterator[str]:
    """CONVERGED is true, and an error that is reported is neither far below nor far above the true one."""
    true, reported, tol = case.truth.error, case.outputs.get("marginal_error", math.nan), case.tol
    if case.truth.noise > 0.01 or case.result.status is Status.DIVERGED:  # 80 bits are too few to know
        return
    if not true <= 2 * (tol if case.result.success else max(reported, tol)):
        yield f"{case.status} at {reported:.2e} with tol {tol:.1e}, the true error is {true:.2e}"
    elif case.result.status is Status.MAX_ITER and true <= (case.asked or 0) / 2 and tol > 1e-6:
        yield f"{case.status} at {reported:.2e} with tol {tol:.1e}, though the true error is {true:.2e}"


def check_bounds(case: Case) -> Iterator[str]:
    """dual <= optimum <= primal, and as close as the potentials make them."""
    result, truth, rounding = case.result, case.truth, case.rounding
    if result.status is Status.DIVERGED or "gap" not in case.outputs:
        return
    (low, high), dual, primal = truth.bracket, float(result.dual64), float(result.primal64)
    rounding += 2.0**-50 * abs(high)
    if not dual <= high + rounding + 1e-10 * abs(high - low):
        yield f"{case.status}: dual {dual:.12g} above the optimum <= {high:.12g}, rounding {rounding:.1e}"
    if not primal >= low - rounding:
        yield f"{case.status}: primal {primal:.12g} below the optimum >= {low:.12g}, rounding {rounding:.1e}"
    if not primal - dual >= -rounding:
        yield f"{case.status}: gap {primal - dual:.3e} negative, rounding {rounding:.1e}"
    # What rounding hides of the sums may have to go anywhere, at any cost.
    moved = 2.0**-46 * truth.posed.largest * float(max(truth.posed.a.sum(), truth.posed.b.sum()))
    widest = 100 * rounding + moved + 4 * (truth.primal - truth.dual + case.tol * truth.terms)
    if np.isinf(truth.posed.C).any():  # then a feasible plan may cost no end
        return
    if result.success and math.isfinite(widest) and not primal - dual <= widest:
        yield f"gap {primal - dual:.3e}, of these potentials {truth.primal - truth.dual:.3e}"


def check_value(case: Case) -> Iterator[str]:
    """The value is the dual objective of the potentials, up to the error in the mass of the plan."""
    if case.result.status in UNRESOLVED or "value" not in case.outputs or case.truth.noise > 0.01:
        return
    value, true, truth = float(case.result.value64), case.truth.dual, case.truth
    mass = float(np.exp(max(np.logaddexp.reduce(z) for side in truth.sides for z in side)))
    error = max(case.outputs.get("marginal_error", 0.0), truth.error)
    if (
        math.isfinite(true)
        and not abs(value - true) <= case.rounding + 2.0**-50 * abs(true) + 4 * error * truth.posed.eps * mass
    ):
        yield f"{case.status}: value {value:.9g}, dual objective of the potentials {true:.9g}"


def check_plan(case: Case) -> Iterator[str]:
    """The numbers of the plan and their sums are those of the potentials."""
    truth, posed, dense = case.truth, case.truth.posed, case.outputs.get("plan.dense")
    P = np.exp(truth.log_plan)
    mass = float(P.sum())
    limit = 2.0**11 * truth.noise + 128 * case.unit * (1 + posed.largest / posed.eps)
    limit = min(limit, 10 * case.tol + 1e-5) if case.result.success else limit
    if dense is None or not 1e-25 < mass < 1e30 or limit > 0.1 or case.result.status in UNRESOLVED:
        return
    if not (off := float(np.abs(dense - P).sum()) / mass) <= limit:
        yield f"{case.status}: plan is off by {off:.2e} in L1, limit {limit:.1e}"
    for name, axis in (("plan.rows_sum", 1), ("plan.columns_sum", 0)):
        sums = case.outputs.get(name)
        if sums is not None and not (off := np.abs(sums - dense.sum(axis=axis)).sum() / mass) <= 2 * limit:
            yield f"{case.status}: {name} is off by {off:.2e}, limit {limit:.1e}"


def check_gradient(case: Case) -> Iterator[str]:
    """grad_x is that of the plan, up to the error in its marginals."""
    found, posed = case.outputs.get("grad_x"), case.truth.posed
    if found is None or not case.result.success or posed.points is None or posed.C.size * found.shape[1] > 1e5:
        return
    mass = float(np.exp(case.truth.log_plan).sum())
    if not 1e-25 < mass < 1e30:
        return
    true, largest = case.truth.gradient
    off, limit = float(np.abs(found - true).sum()), (4 * case.tol + 1e-5) * mass * largest
    limit += case.truth.unsure_slopes(case.unit)
    if not off <= limit + 1e-30:
        yield f"grad_x is off by {off:.2e} in L1, limit {limit:.1e}"


def check_finite(case: Case) -> Iterator[str]:
    """Everything is finite, but for what the documentation names and what a warning has announced."""
    if case.result.status is Status.DIVERGED or case.truth.exponent > (1e30 if case.problem.single else 1e29):
        return  # the second: beyond what kernels tell from nothing
    posed, potentials = case.truth.posed, {"f": case.truth.f, "g": case.truth.g}
    announced = any(PrecisionWarning and issubclass(w.category, PrecisionWarning) for w in case.said)
    allowed = np.isfinite(posed.C)
    alone = {"f": ~(allowed & (posed.b > 0)).any(axis=1), "g": ~(allowed & (posed.a > 0)[:, None]).any(axis=0)}
    # mass without a partner would be worth no end to what has no weight beside it
    f_beside, g_beside = (
        (allowed & (alone["g"] & (posed.b > 0))).any(axis=1),
        (allowed.T & (alone["f"] & (posed.a > 0))).any(axis=1),
    )
    alone = {"f": alone["f"] | f_beside, "g": alone["g"] | g_beside}
    alone["plan.map"] = alone["f"]
    created = {k: -f / rho > 390 for (k, f), rho in zip(potentials.items(), posed.rho, strict=True)}  # exp(-f / rho)
    alone |= {f"grad_{w}": alone[k] | created[k] for w, k in (("a", "f"), ("b", "g"))}
    found = []
    for name, output in case.outputs.items():
        if not isinstance(output, np.ndarray | float | np.floating):
            continue
        bad = ~np.isfinite(np.asarray(output))
        if name in alone:
            bad &= ~alone[name]
        elif name in ("potential", "transport", "displacement", "plan.map") and posed.idle:
            bad = np.isnan(output) if name != "plan.map" else bad & False
        elif name in ("transport", "displacement") and not all(map(math.isinf, posed.rho)):
            bad = np.isnan(output)  # exp(-f / rho) again, at points that are not matched
        elif name in ("dual", "primal", "gap") and not np.isnan(output):
            bad &= case.result.status is not Status.STALLED and (name == "dual" or bool(allowed.all()))
        if np.any(bad) and not (announced and not np.any(np.isnan(output))):
            found.append(name)
    if found:
        yield f"{case.status}: not finite: {', '.join(found)}"


def check_divergence(cases: dict[str, Case], whole: Case) -> Iterator[str]:
    """Zero for equal measures; dual <= S <= primal; the worst of its parts."""
    posed, problem, result = cases["xy"].truth.posed, whole.problem, whole.result
    same = posed.points is not None and np.array_equal(*posed.points[1:])
    if same and np.array_equal(posed.a, posed.b) and posed.rho[0] == posed.rho[1] and float(result.value) != 0:
        yield f"the divergence of equal measures is {float(result.value):.3e}"
    if result.status is not max(case.result.status for case in cases.values()):
        yield "the status is not the worst of the parts"
    if result.status in UNRESOLVED:
        return
    (low, high), (low_x, high_x), (low_y, high_y) = (case.truth.bracket for case in cases.values())
    constant = posed.eps / 2 * (posed.a.sum() - posed.b.sum()) ** 2
    low, high = low - (high_x + high_y) / 2 + constant, high - (low_x + low_y) / 2 + constant
    slack = sum(case.rounding for case in cases.values()) + (2.0**-23 if problem.single else 2.0**-52) * abs(high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what float32 cannot hold has been announced to the first reader
        dual, primal, gap = float(result.dual), float(result.primal), float(result.gap)
    if (dual > high + slack or primal < low - slack or gap < -slack) and math.isfinite(dual + primal):
        bounds = f"dual {dual:.9g}, primal {primal:.9g}"
        yield f"{result.status.name}: {bounds} of S in [{low:.9g}, {high:.9g}]"


OF_POINTS = "f", "grad_x", "grad_a", "displacement"  # with an axis for the points of the first side ...
OF_OTHERS = "g", "grad_y", "grad_b"  # ... and of the second


def flat(result: Any, name: str, output: Any) -> Any:
    """As it would be over points that are listed, where it is over the nodes of a grid."""
    if name not in OF_POINTS + OF_OTHERS:
        return output
    support = result.instance.geometry.supports[name in OF_OTHERS]
    assert output.shape[: len(support)] == support
    return output.reshape(-1, *output.shape[len(support) :])


PART_CHECKS = (
    check_outcome, check_unresolved, check_error, check_bounds, check_value, check_plan, check_gradient, check_finite,
)  # fmt: skip


def read(problem: Problem, result: Any, names: tuple[str, ...] = ()) -> tuple[dict[str, Any], list[Any], list[str]]:
    """Every output (or those of some names), the warnings on the way, and complaints about what raised."""
    outputs, complaints = {}, []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for name, reading in readings(problem, result).items():
            try:
                if name in names or not names:
                    outputs[name] = flat(result, name, reading())
            except Exception as error:
                if not (documented(error) and name == "plan.sample"):  # a plan of nothing has no pairs
                    complaints.append(f"reading {name}: {kind_of(error)}")
    return outputs, said, [*complaints, *(f"reading: {text}" for text in unexpected(said, problem))]


def check_result(problem: Problem, result: Any, before: list[Any]) -> Iterator[str]:
    """Complaints about a result, of its parts and of the whole; `before` are the warnings of the solve."""
    parts = {name: getattr(result, name) for name in ("xy", "xx", "yy")} if hasattr(result, "xy") else {"xy": result}
    cases, posed = {}, problem.posed()
    for name, part in parts.items():
        outputs, said, raised = read(problem, part, () if name == "xy" else BRIEF)
        truth = Truth.of(posed[name], part.source.potential, part.target.potential)
        cases[name] = Case(problem, part, outputs, before + said, truth)
        yield from (f"{name} {text}" for text in (*raised, *checked(PART_CHECKS, cases[name])))
    if len(parts) == 3:
        outputs, said, raised = read(problem, result)
        whole = Case(problem, result, outputs, before + said, cases["xy"].truth)
        yield from (f"whole {text}" for text in (*raised, *checked((check_finite,), whole)))
        yield from (f"whole {text}" for text in checked((check_divergence,), cases, whole))


def checked(checks: Sequence[Callable[..., Iterator[str]]], *cases: Any) -> list[str]:
    with np.errstate(all="ignore"):  # of the oracle: what the package computes has been read before
        return [f"{check.__name__[6:]}: {text}" for check in checks for text in check(*cases)]
