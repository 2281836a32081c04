"""Weights between measures: objectives, closed forms, bounds and invariances; never the densities of sharp measures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import epsot
from epsot.geometry.pyramid import interpolated
from tests.checks import close, slopes, up_to_constant

BLUR = 0.2
T = (0.5, 0.2, 0.3)
TIGHT: dict[str, Any] = {"blur": BLUR, "tol": 1e-8, "max_iter": 5000}


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """Points about as far apart as the blur: below it, the weights of the optimum hardly show in its value."""
    return epsot.Grid((6, 4), spacing=0.25).points + np.random.default_rng(0).uniform(-0.03, 0.03, (24, 2))


@pytest.fixture(scope="module")
def smooth(cloud: np.ndarray) -> np.ndarray:
    """Three measures on the cloud, with zeros, of which the barycenter is positive everywhere or nearly."""
    a = np.exp(np.stack([cloud[:, 0], -cloud[:, 1], np.cos(3 * cloud[:, 0] + cloud[:, 1])]))
    a[0, 3] = a[1, 13] = 0.0
    return a / a.sum(axis=1, keepdims=True)


def objective(cloud: Any, w: np.ndarray, a: np.ndarray, t: Any, blur: float, debias: bool, p: float = 2) -> float:
    """sum_k t_k S(w, a_k), or sum_k t_k OT(w, a_k) + eps KL(w | uniform)."""
    loss = epsot.sinkhorn_divergence if debias else epsot.sinkhorn
    parts = [loss(cloud, cloud, w, b, blur=blur, p=p, tol=1e-10, max_iter=20000) for b in a]
    value = sum(share * float(part.value) for share, part in zip(t, parts, strict=True))
    if debias:
        return value
    mass, positive = w.sum(), w[w > 0]
    return value + blur**p * float(np.sum(positive * np.log(positive * len(w) / mass)))


@pytest.mark.parametrize("p", [2, 1])
@pytest.mark.parametrize("debias", [True, False])
def test_objective_is_least(cloud: np.ndarray, smooth: np.ndarray, debias: bool, p: int, any_path: None) -> None:
    """Its value, and no weights that have more: nearby, at random, or along any exchange of two points."""
    a = 2.5 * smooth
    result = epsot.barycenter(cloud, a, T, blur=BLUR, debias=debias, p=p, tol=1e-7, max_iter=20000)
    assert result.success
    w = result.weights
    close(w.sum(), 2.5)
    assert np.all(w >= 0)
    least = objective(cloud, w, a, T, BLUR, debias, p)
    assert abs(float(result.value) - least) < 1e-8
    rng = np.random.default_rng(2)
    for scale in (1e-3, 0.1, 1.0):
        other = rng.uniform(0, 1, len(w))
        other = (1 - scale) * w + scale * 2.5 * other / other.sum()
        assert objective(cloud, other, a, T, BLUR, debias, p) > least - 1e-9
    phi = np.asarray(T) @ result.f
    if not debias:
        phi = phi + result.eps * np.log(w)
    i, j = np.argsort(w)[-2:]
    exchange = np.zeros_like(w)
    exchange[i], exchange[j] = 1.0, -1.0
    step = 1e-4
    ahead, back = (objective(cloud, w + s * exchange, a, T, BLUR, debias, p) for s in (step, -step))
    assert abs((ahead - back) / (2 * step) - (phi[i] - phi[j])) < 1e-6
    assert abs(phi[i] - phi[j]) < 1e-6


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("tol", [0.1, 1e-2, 1e-3])
def test_gap_is_a_bound(cloud: np.ndarray, smooth: np.ndarray, debias: bool, tol: float) -> None:
    """Also where hardly anything has converged; and not a loose one where it has."""
    best = epsot.barycenter(cloud, smooth, T, debias=debias, **TIGHT)
    result = epsot.barycenter(cloud, smooth, T, blur=BLUR, debias=debias, tol=tol)
    least = float(best.value)
    reached = objective(cloud, result.weights, smooth, T, BLUR, debias)
    assert float(result.dual) <= least + 1e-10
    assert reached <= float(result.primal) + 1e-10
    assert reached - least <= float(result.gap) + 1e-10
    # The terms of the measures with themselves are the same of both bounds, and as uncertain as they are solved.
    close(float(result.gap), float(result.primal) - float(result.dual), 1e-5 if debias else 1e-9)
    assert float(best.gap) < 1e-5


def test_gap_sees_what_no_error_does(cloud: np.ndarray, smooth: np.ndarray) -> None:
    """Without mass at a point its condition counts nothing in the error, but all in the bound."""
    result = epsot.barycenter(cloud, smooth, T, blur=BLUR, tol=None)
    assert result.status is epsot.Status.SCHEDULE_ENDED
    assert float(result.gap) > 10 * float(epsot.barycenter(cloud, smooth, T, **TIGHT).gap)


def test_float32_has_a_true_bound(cloud: np.ndarray, smooth: np.ndarray, any_path: None) -> None:
    best = epsot.barycenter(cloud, smooth, T, **TIGHT)
    shifted = (cloud + 50.0).astype(np.float32)
    result = epsot.barycenter(shifted, smooth.astype(np.float32), T, blur=BLUR)
    assert result.success
    assert result.weights.dtype == result.value.dtype == result.f.dtype == np.float32
    assert objective(cloud, result.weights.astype(float), smooth, T, BLUR, True) - float(best.value) <= result.gap


@pytest.mark.parametrize("k", [0, 1, 2])
def test_corner_of_the_simplex(cloud: np.ndarray, smooth: np.ndarray, k: int) -> None:
    """A share of one gives the measure itself, zeros too; blurred, what its plan makes of it."""
    t = np.zeros(3)
    t[k] = 2.0
    result = epsot.barycenter(cloud, smooth, t, blur=BLUR)
    assert result.success
    close(result.weights, smooth[k], 1e-15)
    assert abs(float(result.value)) < 1e-7
    assert 0 <= float(result.gap) < 1e-4
    close(
        epsot.barycenter(cloud, smooth[k][None, :], blur=BLUR).weights, smooth[k], 1e-15
    )  # one measure is a corner, too
    blurred = epsot.barycenter(cloud, smooth, t, blur=BLUR, debias=False, tol=1e-9)
    alone = epsot.barycenter(cloud, smooth[[k]], blur=BLUR, debias=False, tol=1e-9)
    close(blurred.weights, alone.weights, 1e-9)


@pytest.mark.parametrize("debias", [True, False])
def test_shares_of_zero_take_no_part(cloud: np.ndarray, smooth: np.ndarray, debias: bool) -> None:
    result = epsot.barycenter(cloud, smooth, [0.6, 0.0, 0.4], debias=debias, **TIGHT)
    without = epsot.barycenter(cloud, smooth[[0, 2]], [3, 2], debias=debias, **TIGHT)
    close(result.weights, without.weights, 1e-12)
    close(result.value, without.value, 1e-12)
    assert result.f.shape == result.g.shape == result.grad_a.shape == (3, len(cloud))
    assert np.all(result.grad_a[1] == 0)
    part = result.parts[1]
    close(part.plan.sum(axis=1), result.weights, 1e-6)
    close(part.plan.sum(axis=0), smooth[1], 1e-6)


def test_invariances(cloud: np.ndarray, smooth: np.ndarray) -> None:
    """Order of measures and of points, their mass, the sum of shares, where the points lie, the name of the support."""
    rng = np.random.default_rng(3)
    result = epsot.barycenter(cloud, smooth, T, **TIGHT)
    order, places = [2, 0, 1], rng.permutation(len(cloud))
    same = epsot.barycenter(cloud, list(smooth[order]), np.asarray(T)[order], **TIGHT)
    close(same.weights, result.weights, 1e-6)
    close(same.grad_t, result.grad_t[order], 1e-8)
    same = epsot.barycenter(cloud[places], smooth[:, places], 7 * np.asarray(T), **TIGHT)
    close(same.weights, result.weights[places], 1e-6)
    assert same.t == pytest.approx(T, abs=1e-15)
    same = epsot.barycenter(cloud + [100.0, -30.0], smooth * 12.0, T, **TIGHT)
    close(same.weights, 12 * result.weights, 1e-5)
    close(same.value, 12 * result.value, 1e-9)
    close(same.f, result.f, 1e-7)
    close(np.abs(same.g - result.g).max(), 0.0, 1e-7)
    near, far = (r.grad_t - r.grad_t.mean() for r in (result, same))
    close(far, 12 * near, 1e-8)


def test_equal_measures(cloud: np.ndarray, smooth: np.ndarray) -> None:
    """Where all measures are one, that is their barycenter."""
    result = epsot.barycenter(cloud, smooth[[0, 0]], [1, 2], **TIGHT)
    close(result.weights, smooth[0], 1e-5)
    assert abs(float(result.value)) < 1e-9


def gaussians(grid: Any, centres: Any, deviation: float) -> np.ndarray:
    axes = np.meshgrid(*grid.axes, indexing="ij")
    squares = [sum((z - c) ** 2 for z, c in zip(axes, centre, strict=True)) for centre in centres]
    a = np.exp(-np.asarray(squares) / (2 * deviation**2))
    return a / a.sum(axis=tuple(range(1, a.ndim)), keepdims=True)


def moments(grid: Any, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat, points = w.ravel() / w.sum(), grid.points
    mean = flat @ points
    return mean, np.sqrt(flat @ (points - mean) ** 2)


def test_gaussians_keep_their_width() -> None:
    """Debiased: the midpoint, of deviation 5 at any blur. Blurred: wider by about the blur. (Janati et al. 2020)"""
    grid = epsot.Grid((48, 56))
    a = gaussians(grid, [(18.0, 20.0), (30.0, 36.0)], 5.0)
    result = epsot.barycenter(grid, a, blur=3.0)
    mean, deviation = moments(grid, result.weights)
    close(mean, [24.0, 28.0], 1e-2)
    close(deviation, 5.0, 1e-3 * 5)
    assert np.abs(result.weights - gaussians(grid, [(24.0, 28.0)], 5.0)[0]).sum() < 3e-3
    assert result.weights.shape == result.f.shape[1:] == grid.shape
    _, blurred = moments(grid, epsot.barycenter(grid, a, blur=3.0, debias=False).weights)
    assert np.all((blurred > 5.6) & (blurred < 5.95))


def test_deviations_are_averaged() -> None:
    """Of Gaussians on a line the barycenter has the mean of the deviations, with any shares."""
    grid = epsot.Grid(120)
    narrow, wide = (gaussians(grid, [(60.0,)], s)[0] for s in (5.0, 9.0))
    for share in (0.25, 0.5):
        result = epsot.barycenter(grid, [narrow, wide], [1 - share, share], blur=2.0, tol=1e-4)
        close(moments(grid, result.weights)[1], 5.0 + 4.0 * share, 0.02)


def test_grids_are_points() -> None:
    grid = epsot.Grid((6, 5), spacing=0.2)
    a = np.random.default_rng(0).uniform(0.5, 1.5, (3, 6, 5))
    a /= a.sum(axis=(1, 2), keepdims=True)
    result = epsot.barycenter(grid, a, T, **TIGHT)
    flat = epsot.barycenter(grid.points, a.reshape(3, -1), T, **TIGHT)
    close(result.weights.reshape(-1), flat.weights, 1e-6)
    close(result.value, flat.value, 1e-10)
    close(result.gap, flat.gap, 1e-7)


def test_coarse_grids_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From coarse to fine or on all pixels from the start: the same barycenter, in fewer steps on the pixels."""
    grid = epsot.Grid((40, 33), spacing=(1.0, 1.5), origin=(3.0, -2.0))
    a = gaussians(grid, [(13.0, 12.0), (30.0, 34.0)], 4.5)
    options: dict[str, Any] = {"blur": 2.5, "tol": 1e-5, "max_iter": 3000}
    result = epsot.barycenter(grid, a, [1, 2], **options)
    assert result.nit > len(result.history)  # which holds the steps on the pixels
    monkeypatch.setattr("epsot.geometry.separable.Separable.resolutions", lambda *args, **kwargs: None)
    whole = epsot.barycenter(grid, a, [1, 2], **options)
    assert whole.nit == len(whole.history)
    close(result.value, whole.value, 1e-5)
    assert np.abs(result.weights - whole.weights).sum() < 2e-3
    assert len(result.history) < whole.nit


@pytest.mark.parametrize("nit", [1, 12])
def test_callback_from_coarse_grids(nit: int) -> None:
    """It sees weights of the shape of the grid, and may end the solve on any."""
    grid = epsot.Grid((40, 33))
    a = 2 * gaussians(grid, [(13.0, 12.0), (30.0, 20.0)], 4.5)
    seen: list[Any] = []

    def stop(record: Any) -> None:
        assert record.weights.shape == grid.shape
        close(record.weights.sum(), 2.0)
        seen.append(record)
        if record.nit == nit:
            raise StopIteration

    result = epsot.barycenter(grid, a, blur=2.0, tol=1e-9, callback=stop)
    assert result.status is epsot.Status.STOPPED
    assert result.nit == nit + 1 if nit == 1 else result.nit >= nit
    close(result.weights.sum(), 2.0)
    assert seen[0].record().weights.shape == grid.shape
    assert epsot.barycenter(grid, a, blur=2.0, tol=1e-2, init=seen[0]).success


def test_interpolation_of_cubics() -> None:
    """Between four nodes a cubic is exact, and a constant everywhere."""
    coarse, fine = epsot.Grid((9, 8), spacing=2.0, origin=0.5), epsot.Grid((18, 16))
    cubic = [(z[:, 0] - 7) ** 3 / 50 - z[:, 1] ** 2 + z[:, 0] * z[:, 1] for z in (coarse.points, fine.points)]
    found = interpolated(cubic[0], coarse, fine, np).reshape(fine.shape)
    inside = slice(3, -3), slice(3, -3)
    close(found[inside], cubic[1].reshape(fine.shape)[inside], 1e-11)
    close(interpolated(np.ones(72), coarse, fine, np), 1.0, 1e-14)


def test_periodic_axis() -> None:
    """Across the seam is nearer than through the middle."""
    grid = epsot.Grid(40, periodic=True)
    (x,) = grid.axes
    a = np.stack([np.exp(-((((x - c) + 20) % 40 - 20) ** 2) / 18) for c in (36.0, 4.0)])
    result = epsot.barycenter(grid, a / a.sum(axis=1, keepdims=True), blur=2.0)
    assert result.success
    assert int(np.argmax(result.weights)) == 0


def test_sharp_measures_by_objective() -> None:
    """Two discs and a bar: looser tolerances have nearly the same objective, within their gaps."""
    grid = epsot.Grid((32, 32))
    u, v = np.meshgrid(*grid.axes, indexing="ij")
    shapes = [(u - 15.5) ** 2 + (v - 15.5) ** 2 < 81, (abs(u - 8) < 3) | (abs(u - 24) < 3), abs(u - v) < 4]
    a = np.stack([z / z.sum() for z in shapes])
    results = [epsot.barycenter(grid, a, blur=2.0, tol=tol) for tol in (1e-2, 1e-3)]
    values = [objective(grid, r.weights, a, r.t, 2.0, True) for r in results]
    assert values[1] <= values[0] * 1.001
    assert values[0] - values[1] <= float(results[0].gap)
    assert float(results[1].gap) < 0.03 * values[1]


def test_derivatives(cloud: np.ndarray, smooth: np.ndarray) -> None:
    """Those of the least value in the shares and in the measures, along directions that keep sum and mass."""
    options: dict[str, Any] = {"blur": BLUR, "tol": 1e-9, "max_iter": 20000}
    for debias in (True, False):
        result = epsot.barycenter(cloud, smooth, T, debias=debias, **options)

        def least(t: np.ndarray, debias: bool = debias) -> float:
            return float(epsot.barycenter(cloud, smooth, t, debias=debias, **options).value)

        numeric = slopes(least, np.asarray(T), 1e-4)  # the shares are normalised: along the simplex
        close(numeric, result.grad_t - np.asarray(T) @ result.grad_t, 1e-6)
        rng = np.random.default_rng(4)
        direction = rng.normal(size=len(cloud)) * smooth[2]
        direction -= smooth[2] * direction.sum()
        step = 1e-3

        def moved(s: float, debias: bool = debias, direction: np.ndarray = direction) -> float:
            a = np.stack([smooth[0], smooth[1], smooth[2] + s * direction])
            return float(epsot.barycenter(cloud, a, T, debias=debias, **options).value)

        difference = (moved(step) - moved(-step)) / (2 * step)
        close(result.grad_a[2] @ direction, difference, 1e-5 * np.abs(direction).sum())
        close(up_to_constant(result.grad_a), up_to_constant(np.asarray(T)[:, None] * result.g), 1e-12)


def test_derivative_of_the_value_is_that_of_divergences(cloud: np.ndarray, smooth: np.ndarray) -> None:
    result = epsot.barycenter(cloud, smooth, T, **TIGHT)
    parts = [
        epsot.sinkhorn_divergence(cloud, cloud, result.weights, b, blur=BLUR, tol=1e-10, max_iter=9999) for b in smooth
    ]
    close(result.grad_t, [float(part.value) for part in parts], 1e-7)
    close(up_to_constant(result.f), up_to_constant(np.stack([part.f for part in parts])), 1e-5)


def test_start_and_status(cloud: np.ndarray, smooth: np.ndarray) -> None:
    first = epsot.barycenter(cloud, smooth, T, **TIGHT)
    again = epsot.barycenter(cloud, smooth, [0.4, 0.3, 0.3], init=first, **TIGHT)
    cold = epsot.barycenter(cloud, smooth, [0.4, 0.3, 0.3], **TIGHT)
    close(again.weights, cold.weights, 1e-5)
    close(again.value, cold.value, 1e-10)
    corner = epsot.barycenter(cloud, smooth, [0, 1, 0], blur=BLUR)
    close(epsot.barycenter(cloud, smooth, T, init=corner, **TIGHT).value, first.value, 1e-10)
    assert [check.nit for check in first.history] == list(range(1, first.nit + 1))
    assert first.history[-1].marginal_error == first.marginal_error <= 1e-8
    with pytest.warns(epsot.ConvergenceWarning, match="MAX_ITER.*marginal error"):
        short = epsot.barycenter(cloud, smooth, T, blur=BLUR, tol=1e-12, max_iter=4)
    assert short.nit == 4
    assert not short.success
    assert "24" in repr(first)
    assert "CONVERGED" in repr(first)
    assert np.array_equal(
        first.weights, epsot.barycenter(cloud, smooth, T, workers=1, **TIGHT).weights
    )  # the same bits with any number of workers


@pytest.mark.parametrize("t", [T, (0.0, 1.0, 0.0)])
def test_callback(cloud: np.ndarray, smooth: np.ndarray, t: Any) -> None:
    seen: list[Any] = []

    def stop(record: Any) -> None:
        seen.append((record.nit, record.eps, record.marginal_error, record.weights.sum(), repr(record)))
        if len(seen) == 2:
            raise StopIteration

    result = epsot.barycenter(cloud, 3 * smooth, t, blur=0.02, tol=1e-12, callback=stop)
    assert result.status is epsot.Status.STOPPED
    assert len(seen) == 2
    close([weights for *_, weights, _ in seen], 3.0)
    assert result.eps == pytest.approx(0.02**2)
    assert np.isfinite(float(result.value))


@pytest.mark.parametrize("library", ["strict", "torch", "jax"])
@pytest.mark.parametrize("debias", [True, False])
def test_library_of_the_user(cloud: np.ndarray, smooth: np.ndarray, library: str, debias: bool) -> None:
    xp = strict if library == "strict" else pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library])
    x, a = (xp.asarray(z.astype(np.float32)) for z in (cloud, smooth))
    result = epsot.barycenter(x, a, xp.asarray(np.asarray(T, np.float32)), blur=BLUR, debias=debias)
    expected = epsot.barycenter(cloud, smooth, T, debias=debias, blur=BLUR)
    for name in ("weights", "value", "gap", "f", "g", "grad_a", "grad_t"):
        found, wanted = getattr(result, name), getattr(expected, name)
        assert type(found) is type(x), name
        assert found.dtype == x.dtype, name
        atol = 2e-3 if name in ("f", "g") else 2e-4
        close(np.from_dlpack(found) if library == "strict" else np.asarray(found), wanted, atol)


def test_inputs_stay(cloud: np.ndarray, smooth: np.ndarray) -> None:
    a, t = smooth.copy(), np.asarray(T)
    result = epsot.barycenter(cloud, a, t, blur=BLUR)
    value = float(result.value)
    assert np.array_equal(a, smooth)
    a[:] = 0
    assert float(result.gap) >= 0
    assert float(result.value) == value


def test_tensors_that_record(cloud: np.ndarray, smooth: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    a = torch.tensor(smooth, requires_grad=True)
    with pytest.warns(UserWarning, match="`a` requires grad"):
        result = epsot.barycenter(torch.tensor(cloud), a, T, blur=BLUR)
    close(result.weights.numpy(), epsot.barycenter(cloud, smooth, T, blur=BLUR).weights, 1e-12)


GOOD = np.full((2, 5), 0.2)
LINE = np.arange(5.0)[:, None]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"t": [1, -1]}, ValueError, r"`t\[1\]` must be finite and not negative"),
        ({"t": [1, np.nan]}, ValueError, r"`t\[1\]` must be finite"),
        ({"t": [0, 0]}, ValueError, "`t` must have a positive share"),
        ({"t": [1, 2, 3]}, ValueError, r"`t` must have shape \(2,\)"),
        ({"t": "half"}, TypeError, "`t` must"),
        ({"a": GOOD[0]}, ValueError, "`a` must have one axis for the measures"),
        ({"a": None}, TypeError, "`a` must be an array of K measures"),
        ({"a": []}, ValueError, "`a` must"),
        ({"a": np.empty((0, 5))}, ValueError, "`a` must hold at least one measure"),
        ({"a": GOOD[:, :4]}, ValueError, r"`a\[0\]` must have shape \(5,\)"),
        ({"a": [GOOD[0], 2 * GOOD[0]]}, ValueError, r"`a\[1\]` must have the mass of `a\[0\]`"),
        ({"a": [GOOD[0], 0 * GOOD[0]]}, ValueError, r"`a\[1\]` must have positive mass"),
        ({"a": [GOOD[0], -GOOD[0]]}, ValueError, r"`a\[1\]` must not be negative"),
        ({"a": [GOOD[0], GOOD[0] * np.nan]}, ValueError, r"`a\[1\]` must have finite weights"),
        ({"blur": 0.0}, ValueError, "`blur` must be positive"),
        ({"p": 3}, ValueError, "`p`"),
        ({"debias": "yes"}, TypeError, "`debias` must be True or False"),
        ({"scaling": 1.0}, ValueError, "`scaling`"),
        ({"tol": -1.0}, ValueError, "`tol`"),
        ({"max_iter": 0}, ValueError, "`max_iter`"),
        ({"workers": 0}, ValueError, "`workers`"),
        ({"callback": 3}, TypeError, "`callback`"),
        ({"init": 3}, TypeError, "`init` must be an earlier barycenter"),
        ({"init": epsot.barycenter(LINE + 1, GOOD, blur=1.0)}, ValueError, "`init` must be a barycenter of 2 measures"),
        ({"init": epsot.barycenter(LINE, GOOD[:1], blur=1.0)}, ValueError, "`init` must be a barycenter of 2 measures"),
        ({"support": np.full((5, 1), np.inf)}, ValueError, "finite"),
        ({"support": epsot.Grid((5, 2))}, ValueError, "`a`"),
    ],
)
def test_errors(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"support": LINE, "a": GOOD, "blur": 1.0, **changes}
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        warnings.simplefilter("error")
        epsot.barycenter(arguments.pop("support"), arguments.pop("a"), arguments.pop("t", None), **arguments)


def test_one_point() -> None:
    result = epsot.barycenter([[1.0, 2.0]], [[3.0], [3.0]], blur=1.0)
    close(result.weights, [3.0])
    assert abs(float(result.value)) < 1e-12


# What a solve starts from


@pytest.mark.parametrize("debias", [True, False])
def test_loaded_results_and_records_are_starts(debias: bool, tmp_path: Path) -> None:
    grid = epsot.Grid((12, 10), spacing=0.1)
    u, v = np.meshgrid(*grid.axes, indexing="ij")
    a = np.stack([np.exp(-((u - c) ** 2 + (v - 0.5) ** 2) / 0.02) for c in (0.3, 0.6, 0.9)])
    a[0, 0] = 0.0
    a /= a.sum(axis=(1, 2), keepdims=True)
    seen: list[Any] = []

    def keep(record: Any) -> None:
        seen.append((record.weights, record.marginal_error))
        if record.nit == 10:
            record.save(tmp_path / "record")
            seen.append(record)
            raise StopIteration

    def solve(**options: Any) -> epsot.BarycenterResult:
        return epsot.barycenter(grid, a, T, blur=0.1, debias=debias, tol=1e-6, max_iter=5000, **options)

    cold = solve()
    with pytest.warns(epsot.ConvergenceWarning):
        stopped = epsot.barycenter(grid, a, T, blur=0.1, debias=debias, tol=1e-9, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solve(callback=keep)
    record, kept = epsot.load(tmp_path / "record"), seen.pop()
    assert record.status is epsot.Status.STOPPED
    assert (record.nit, record.eps, record.marginal_error) == (10, kept.eps, seen[-1][1])
    np.testing.assert_array_equal(record.weights, seen[-1][0])
    np.testing.assert_array_equal(kept.record().gap, record.gap)
    cold.save(tmp_path / "result")
    loaded = epsot.load(tmp_path / "result")
    same, again = solve(init=cold), solve(init=loaded)
    assert same.nit == again.nit
    np.testing.assert_array_equal(same.weights, again.weights)
    for init in (loaded, record, kept, stopped):
        warm = solve(init=init)
        assert warm.success
        close(warm.value, cold.value, 1e-6)


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "jax.numpy"])
def test_loaded_results_start_barycenters_of_any_library(
    library: str, cloud: np.ndarray, smooth: np.ndarray, tmp_path: Path
) -> None:
    xp = pytest.importorskip(library)
    cloud, smooth = cloud.astype(np.float32), smooth.astype(np.float32)
    theirs = xp.asarray(cloud), xp.asarray(smooth)
    epsot.barycenter(cloud, smooth, T, blur=BLUR).save(tmp_path / "result")
    warm = epsot.barycenter(*theirs, T, blur=BLUR, init=epsot.load(tmp_path / "result"))
    assert warm.success
    assert type(warm.weights) is type(theirs[1])
    warm.save(tmp_path / "again")
    np.testing.assert_allclose(epsot.load(tmp_path / "again").weights, np.asarray(warm.weights), rtol=1e-6)
    if library == "array_api_strict":
        with pytest.raises(TypeError, match="`init` must be a barycenter of the same array library"):
            epsot.barycenter(cloud, smooth, T, blur=BLUR, init=warm)
