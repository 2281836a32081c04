"""The safeguards of the acceleration of many problems against those of one, driven by errors that are made up.

Nothing is computed: the arrays are labels of the steps that they belong to, so that every choice shows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

from epsot.arrays import Place
from epsot.kernels.batched import Matrix
from epsot.kernels.mixing import Mixed
from epsot.kernels.vectors import MixedStep
from epsot.problems.many import Measures, Problems
from epsot.solver.acceleration import LONG, AcceleratedState
from epsot.solver.acceleration import ConjugateResiduals as One
from epsot.solver.many import acceleration
from epsot.solver.many.acceleration import ConjugateResiduals, State
from epsot.solver.many.courses import GO_ON, Courses
from epsot.solver.many.updates import SelfTransport
from epsot.solver.schedule import Level
from epsot.solver.updates import Alternating, AlternatingState
from epsot.status import Status
from tests.solver.batches import one_shape

B, STEPS = 12, 400


class Script:
    """Errors, norms and temperatures of every step; what a step from g gives; whether columns are tied."""

    def __init__(self, rng: np.random.Generator) -> None:
        walk = np.cumsum(rng.normal(size=(STEPS, B)) * np.geomspace(0.001, 0.5, B), axis=0)
        self.errors = np.exp(walk) * rng.choice([1, 1, 1, 5], (STEPS, B))
        self.norms = np.exp(np.cumsum(rng.normal(size=(STEPS, B)) * 0.1, axis=0))
        turns = np.cumsum(rng.random((STEPS, B)) < np.linspace(0, 0.1, B), axis=0)
        self.eps = 4.0 * 0.5 ** (turns % 6)  # down five times, and up again
        self.step = 0

    def plain(self, g: Any) -> tuple[Any, Any, Any, Any]:
        label = self.step + 0 * g
        return label, g, label + 0.25, label + 0.5

    def mixed(self, like: Any) -> Any:
        return -1.0 - self.step + 0 * like

    @staticmethod
    def leaving(f: Any) -> Any:
        """Of a column: what a step of this number is said to replace."""
        return np.where(np.asarray(f) % 2 == 0, 1e-3, 1.0)


class Alone:
    """What one `ConjugateResiduals` calls, of problem k: update, problem, and directions."""

    balanced, place = False, Place(array_namespace(np.zeros(1)), "cpu")

    def __init__(self, script: Script, k: int) -> None:
        self.script, self.k, self.fresh, self.eased = script, k, True, False
        self.problem = self.T = self

    def step(self, plain: AlternatingState, eps: float) -> AlternatingState:
        return AlternatingState(*self.script.plain(plain.start))

    def error(self, plain: AlternatingState, eps: float) -> float:
        return float(self.script.errors[self.script.step, self.k])

    def leaving(self, g: Any, f: Any, updated: Any, eps: float) -> Any:
        return self.script.leaving(f)

    def rescale(self, scale: Any) -> None:
        self.fresh, self.eased = True, scale is not None

    def advance(self, g: Any, updated: Any, result: Any, eps: float) -> MixedStep:
        self.fresh = False
        return MixedStep(
            self.script.mixed(g), self.error(None, eps), float(self.script.norms[self.script.step, self.k])
        )

    def finish(self, best: AlternatingState, eps: float) -> AlternatingState:
        return best


def compare(state: State, one: AcceleratedState, alone: Alone, k: int) -> None:
    """Everything that a later step depends on."""
    ledger, plain = state.ledger, one.plain
    labels = [float(z[k, 0]) for z in state.plain]
    np.testing.assert_allclose(labels, [float(z[0]) for z in (plain.f, plain.g, plain.updated, plain.start)])
    numbers = ledger.eps, ledger.steps, ledger.error, ledger.lowest_error, ledger.lowest_norm, ledger.waited
    expected = one.eps, one.steps, one.error, *one.lowest, one.without_progress
    assert tuple(float(column[k]) for column in numbers) == tuple(map(float, expected))
    counts = ledger.plain_steps, ledger.plain_length, ledger.next_check, ledger.levels
    assert tuple(int(z[k]) for z in counts) == (one.plain_steps, one.plain_length, one.next_check, len(one.levels))
    assert (bool(ledger.forgotten[k]), bool(ledger.eased[k])) == (alone.fresh, alone.eased)
    assert one.best is None or float(state.best.start[k, 0]) == float(one.best.start[0])
    assert np.isnan(ledger.coldest_eps[k]) == (one.coldest is None)


@pytest.mark.parametrize("seed", range(3))
def test_every_choice_is_that_of_one_problem(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    script, place, ones = Script(np.random.default_rng(seed)), Alone.place, np.ones((B, 1))
    side = Measures.of(ones, None, 1.0, place)
    problems = Problems(Matrix(np.zeros((B, 1, 1))), side, side, script.eps[0], np.ones(B))
    monkeypatch.setattr(acceleration, "alternate", lambda problems, g, eps: acceleration.Step(*script.plain(g)))
    monkeypatch.setattr(
        acceleration, "advance",
        lambda side, memory, g, result, eps: Mixed(memory, script.mixed(g), script.norms[script.step]),
    )  # fmt: skip
    monkeypatch.setattr(Measures, "violation", lambda self, f, next_f, eps: script.errors[script.step])
    monkeypatch.setattr(Problems, "leaving", lambda self, f, g, next_g, eps: script.leaving(f))
    many, stubs = ConjugateResiduals(), [Alone(script, k) for k in range(B)]
    updates: list[Any] = [One(stub) for stub in stubs]  # type: ignore[arg-type]
    state = many.init(problems, script.eps[0], None, None, np.zeros(B, bool))
    zero = np.zeros(1)
    start = AlternatingState(zero, zero, zero, zero)
    states = [AcceleratedState(start, stub, float(script.eps[0, k])) for k, stub in enumerate(stubs)]  # type: ignore[arg-type]
    seen: set[str] = set()
    for script.step in range(STEPS):
        eps = script.eps[script.step]
        state = many.step(problems, state, eps)
        kept, errors = many.kept(problems, state, eps)
        for k in range(B):
            states[k] = one = updates[k].step(states[k], float(eps[k]))
            compare(state, one, stubs[k], k)
            best = updates[k].finish(one, float(eps[k]))
            np.testing.assert_allclose([z[k, 0] for z in kept], [best.f[0], best.g[0], best.updated[0]])
            colder = one.coldest is not None and best is one.coldest[2]
            lowest = one.coldest[1] if colder and one.coldest is not None else one.lowest[0]
            assert errors[k] == lowest
            marks = {"retreat": one.plain_steps == 1, "again": one.plain_length > 40, "eased": stubs[k].eased}
            marks |= {"colder": colder, "check": one.next_check > LONG, "extrapolated": len(one.levels) == 2}
            seen.update(name for name, found in marks.items() if found)
    assert seen == {"retreat", "again", "eased", "colder", "check", "extrapolated"}


def test_constants_are_removed_where_one_problem_would() -> None:
    """Of large costs or temperatures, of balanced problems, by the median of the columns that have weight."""
    rng = np.random.default_rng(0)
    batch = one_shape(0, count=6)
    batch = replace(batch, rho=np.asarray([[math.inf] * 2] * 5 + [[1.0, math.inf]]))
    instances = [batch.instance(k) for k in range(6)]
    scale = np.asarray([1e9, 1.0, 1.0, 1.0, 0.0, 1e9])
    past, eps = np.asarray([2.0, 1e9, 1e9, 2.0, 1e9, 2.0]), np.asarray([1.0, 1.0, np.inf, 1.0, 1.0, 1.0])
    problems = replace(batch.problems(instances), scale=scale)
    start = np.where(batch.b > 0, rng.normal(size=batch.b.shape), 0)
    moved = acceleration.centred(problems, start, past, eps)
    assert [bool((row != other).any()) for row, other in zip(moved, start, strict=True)] == [True, True] + [False] * 4
    for k in (0, 1, 3, 4, 5):
        kept = batch.b[k] > 0
        one = One(Alternating(replace(instances[k].problem, rounded=partial(float, scale[k]))))
        plain = AlternatingState(np.zeros(1), np.zeros(1), np.zeros(1), start[k][kept])
        np.testing.assert_array_equal(moved[k][kept], one.centred(plain, float(past[k]), float(eps[k])).start)
        assert np.all(moved[k][~kept] == 0)


def test_verdicts_are_those_of_one_problem() -> None:
    """Of errors that rest, at the rounding of the potentials or above; of slow ones; and where plain steps are made."""
    batch = one_shape(1, count=6)
    instances = [batch.instance(k) for k in range(6)]
    problems = batch.problems(instances)
    levels = [
        Level(float(eps), 100, 1e-30, above) for eps, above in zip(batch.eps, [0.1, 0.1, 9, 0.1, 9, 9], strict=True)
    ]
    courses, ids = Courses([(level,) for level in levels], 1000), np.arange(6)
    errors = np.stack([[1e-15] * 20, [0.5] * 20, [0.5] * 20, 0.9 ** np.arange(20), 0.9 ** np.arange(20), [1e-16] * 20])
    many, f, g = ConjugateResiduals(), np.ones_like(batch.a), np.ones_like(batch.b)
    g[5] = math.inf
    state = many.init(problems, batch.eps, f, g, np.ones(6, bool))
    state = state._replace(ledger=state.ledger._replace(plain_steps=np.asarray([0, 0, 0, 1, 1, 0])))
    found = set()
    for step in range(20):
        courses.take(ids, errors[:, step])
        verdicts = many.verdict(problems, state, courses, ids)
        for k in ids:
            one = One(Alternating(instances[k].problem))
            start = AlternatingState(*(z[k][batch.a[k] > 0] for z in (f,)), *[g[k][batch.b[k] > 0]] * 3)
            alone = AcceleratedState(start, None, float(batch.eps[k]), plain_steps=int(state.ledger.plain_steps[k]))  # type: ignore[arg-type]
            expected = one.verdict(alone, errors[k, : step + 1].tolist(), levels[k])
            assert verdicts[k] == (GO_ON if expected is None else expected)
            found.add((k, expected))
    assert found >= {(0, Status.STALLED), (1, Status.MAX_ITER), (2, None), (3, Status.MAX_ITER), (4, None)}


def test_self_transports_stall_where_one_does() -> None:
    batch = one_shape(2, count=2, m=12)
    batch = replace(batch, y=batch.x, b=batch.a, own=True)
    problems = batch.problems([batch.instance(k) for k in range(2)])
    courses, ids = Courses([(Level(float(eps), 100, 1e-30),) for eps in batch.eps], 1000), np.arange(2)
    many = SelfTransport()
    state = many.init(problems, batch.eps, np.ones_like(batch.a), None, np.ones(2, bool))
    for error in [1.0, 1e-15, 1e-15, 1e-15]:
        courses.take(ids, np.asarray([error, 0.5]))
        assert np.all(many.verdict(problems, state, courses, ids) == GO_ON)
    courses.take(ids, np.asarray([1e-15, 0.5]))
    assert many.verdict(problems, state, courses, ids).tolist() == [Status.STALLED, GO_ON]
