"""epsot.Objective as the function that scipy.optimize.minimize expects."""

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

import epsot


@pytest.fixture
def clouds():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)) * 0.5 + [2.0, -1.0]
    a, b = rng.random(12), rng.random(9)
    a[3] = 0
    return x, y, a / a.sum(), b / b.sum()


def finite_difference_error(obj, z):
    """|gradient - central differences| along a fixed direction, relative to the gradient."""
    rng = np.random.default_rng(0)
    direction, step = rng.normal(size=z.shape), 1e-5
    slope = (obj(z + step * direction)[0] - obj(z - step * direction)[0]) / (2 * step)
    gradient = obj(z)[1]
    return abs(slope - gradient @ direction) / np.linalg.norm(gradient)


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("reach", [None, 1.5])
def test_gradient_in_the_points(clouds, debias, reach):
    x, y, a, b = clouds
    obj = epsot.Objective(y, b, a=a, blur=0.4, reach=reach, debias=debias, tol=1e-11)
    assert finite_difference_error(obj, x.ravel()) < 1e-7


@pytest.mark.parametrize("parametrization", ["softmax", "bounds"])
@pytest.mark.parametrize("reach", [None, 1.5])
def test_gradient_in_the_weights(clouds, parametrization, reach):
    x, y, _, b = clouds
    obj = epsot.Objective(y, 2 * b, wrt="a", x=x, blur=0.4, reach=reach, parametrization=parametrization, tol=1e-11)
    z = np.random.default_rng(1).random(12) + 0.2
    assert finite_difference_error(obj, z) < 1e-7


def product_error(obj, z):
    """|hessp - central differences of the gradient| along a direction, relative; at a place that was not called."""
    direction, step = np.random.default_rng(0).normal(size=z.shape), 1e-5
    wanted = (obj(z + step * direction)[1] - obj(z - step * direction)[1]) / (2 * step)
    return np.linalg.norm(obj.hessp(z, direction) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("reach", [None, 1.5])
def test_products_in_the_points(clouds, debias, reach):
    x, y, a, b = clouds
    obj = epsot.Objective(y, b, a=a, blur=0.4, reach=reach, debias=debias, tol=1e-12, hessian_tol=1e-9)
    assert product_error(obj, x.ravel()) < 1e-6


@pytest.mark.parametrize("parametrization", ["softmax", "bounds"])
@pytest.mark.parametrize("reach", [None, 1.5])
def test_products_in_the_weights(clouds, parametrization, reach):
    x, y, _, b = clouds
    options = {"parametrization": parametrization, "tol": 1e-12, "hessian_tol": 1e-9}
    obj = epsot.Objective(y, 2 * b, wrt="a", x=x, blur=0.4, reach=reach, **options)
    assert product_error(obj, np.random.default_rng(1).random(12) + 0.2) < 1e-6


def test_products_use_the_solves_of_the_last_two_vectors(clouds, monkeypatch):
    x, y, a, b = clouds
    obj = epsot.Objective(y, b, a=a, blur=0.4)
    z, p = x.ravel(), np.ones(24)
    obj(z)
    obj(z + 0.1)
    wanted = obj.hessp(z, p)
    monkeypatch.setattr(obj, "_solve", None)
    np.testing.assert_array_equal(obj.hessp(z, p), wanted)
    obj.hessp(z + 0.1, p[:, None])
    assert obj.calls == 2
    with pytest.raises(TypeError):
        obj.hessp(z + 0.2, p)
    with pytest.raises(ValueError, match="24"):
        obj.hessp(z, p[:3])


def test_products_in_the_points_compute_no_gradient(clouds, monkeypatch):
    """They need none: at a vector that was not called it would be one more pass over all pairs."""
    x, y, _, b = clouds
    obj, p = epsot.Objective(y, b, blur=0.4), np.ones(24)
    wanted = obj.hessp(x.ravel(), p)
    monkeypatch.setattr(epsot.DivergenceResult, "grad_x", None)
    again = epsot.Objective(y, b, blur=0.4)
    np.testing.assert_array_equal(again.hessp(x.ravel(), p), wanted)
    with pytest.raises(AttributeError):
        again(x.ravel())


@pytest.mark.parametrize("method", ["trust-ncg", "trust-krylov", "Newton-CG"])
def test_methods_of_second_order_take_fewer_steps(clouds, method):
    """After as many steps they are closer."""
    _, y, _, _ = clouds
    obj = epsot.Objective(y, blur=0.4, hessian_tol=1e-4)
    z = (y + np.random.default_rng(3).normal(size=y.shape) * 0.5).ravel()
    newton = minimize(obj, z, jac=True, hessp=obj.hessp, method=method, options={"maxiter": 12})
    first = minimize(obj, z, jac=True, method="L-BFGS-B", options={"maxiter": newton.nit})
    assert newton.fun < first.fun


@pytest.mark.parametrize("reach", [None, 1.5])
def test_weights_are_found_by_products(clouds, reach):
    x, y, _, b = clouds
    obj = epsot.Objective(y, b, wrt="a", x=x, blur=0.4, reach=reach)
    found = minimize(obj, np.zeros(12), jac=True, hessp=obj.hessp, method="trust-ncg", options={"maxiter": 20})
    first = minimize(obj, np.zeros(12), jac=True, method="L-BFGS-B", options={"maxiter": 20})
    assert found.fun <= first.fun + 1e-3 * abs(first.fun)


def test_it_is_flat_float64_in_and_out(clouds):
    x, y, a, b = clouds
    obj = epsot.Objective(y.astype(np.float32), b, a=a, blur=0.4)
    value, gradient = obj(x.ravel())
    assert type(value) is float
    assert gradient.shape == (24,)
    assert gradient.dtype == np.float64
    assert obj.last.value.dtype == np.float32


def test_a_point_cloud_is_fitted_to_another():
    """Registered clouds agree: the loss falls to the square of the leftover blur scale, far below the start."""
    rng = np.random.default_rng(0)
    y, x0 = rng.random((60, 2)), rng.random((50, 2)) + [1.5, 0.5]
    obj = epsot.Objective(y, blur=0.05)
    start = obj(x0.ravel())[0]
    found = minimize(obj, x0.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 50})
    assert found.fun < 1e-3 * start
    assert obj.last.success
    assert obj.calls >= found.nfev


def test_weights_are_found_with_bounds_and_without():
    """Half of the points lie on the target: all mass goes there."""
    rng = np.random.default_rng(2)
    y = rng.random((20, 2))
    x = np.concatenate([y, rng.random((20, 2)) + [3.0, 0.0]])
    for parametrization in ("softmax", "bounds"):
        obj = epsot.Objective(y, wrt="a", x=x, blur=0.1, parametrization=parametrization)
        z = np.zeros(40) if parametrization == "softmax" else np.full(40, 1 / 40)
        found = minimize(obj, z, jac=True, method="L-BFGS-B", bounds=obj.bounds)
        weights = obj.variable(found.x)
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert weights[20:].sum() < 1e-3
        assert found.fun < 1e-4


def test_calls_start_from_the_last_one(clouds):
    """The second call at the same place needs one iteration."""
    x, y, a, b = clouds
    obj = epsot.Objective(y, b, a=a, blur=0.4)
    first = obj(x.ravel())
    assert obj.last.nit > 1
    second = obj(x.ravel())
    assert obj.last.nit == 1
    assert second[0] == pytest.approx(first[0], rel=1e-8)


def test_a_warm_start_that_fails_is_followed_by_a_cold_one(clouds, monkeypatch):
    x, y, a, b = clouds
    obj = epsot.Objective(y, b, a=a, blur=0.4)
    obj(x.ravel())
    inits = []
    loss = obj._loss

    def spy(*args, init=None, **options):
        inits.append(init)
        return loss(*args, init=init, **(options | ({"max_iter": 1, "tol": 0.0} if init is not None else {})))

    monkeypatch.setattr(obj, "_loss", spy)
    obj(x.ravel() + 1.0)
    assert len(inits) == 2
    assert inits[0] is not None
    assert inits[1] is None
    assert obj.last.success


def test_scipy_agrees_on_the_gradient(clouds):
    x, y, _, b = clouds
    obj = epsot.Objective(y, b, blur=0.5, tol=1e-11)
    assert check_grad(lambda z: obj(z)[0], lambda z: obj(z)[1], x.ravel(), epsilon=1e-6) < 1e-5


def test_torch_tensors_stay_where_they_are(clouds):
    torch = pytest.importorskip("torch")
    x, y, a, b = clouds
    obj = epsot.Objective(torch.tensor(y), torch.tensor(b), a=torch.tensor(a), blur=0.4)
    same = epsot.Objective(y, b, a=a, blur=0.4)
    value, gradient = obj(x.ravel())
    assert value == pytest.approx(same(x.ravel())[0], rel=1e-9)
    np.testing.assert_allclose(gradient, same(x.ravel())[1], atol=1e-6)
    assert isinstance(obj.last.displacement, torch.Tensor)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"wrt": "b"}, "`wrt`"),
        ({"wrt": "a"}, "`x` is needed"),
        ({"x": np.zeros((3, 2))}, "`x` is what the optimiser moves"),
        ({"wrt": "a", "x": np.zeros((3, 2)), "a": np.ones(3)}, "`a` is what the optimiser moves"),
        ({"parametrization": "exp"}, "`parametrization`"),
        ({"blur": -1.0}, "`blur`"),
        ({"p": 0.5}, "`p`"),
        ({"reach": 0.0}, "`reach`"),
        ({"diameter": -1.0}, "`diameter`"),
        ({"scaling": 1.0}, "`scaling`"),
        ({"tol": -1.0}, "`tol`"),
        ({"max_iter": 0}, "`max_iter`"),
        ({"hessian_tol": 0.0}, "`hessian_tol`"),
        ({"workers": 0}, "`workers`"),
    ],
)
def test_bad_arguments(clouds, options, word):
    with pytest.raises(ValueError, match=word):
        epsot.Objective(clouds[1], **{"blur": 0.1, **options})


def test_bad_vectors(clouds):
    x, y, _, b = clouds
    obj = epsot.Objective(y, b, blur=0.4)
    with pytest.raises(ValueError, match=r"x0.ravel\(\)"):
        obj(x)
    with pytest.raises(ValueError, match="points of 2 coordinates"):
        obj(x.ravel()[:-1])
    weights = epsot.Objective(y, b, wrt="a", x=x, blur=0.4)
    with pytest.raises(ValueError, match="one number for each point"):
        weights(np.zeros(5))
    with pytest.raises(TypeError, match="`z` must be an array of real numbers"):
        obj(x.ravel() + 0j)
    bounded = epsot.Objective(y, b, wrt="a", x=x, blur=0.4, parametrization="bounds")
    for z, word in (
        (0 * x[:, 0], "`z` must have a positive sum, got 0"),
        (-np.ones(len(x)), "`z` must not be negative"),
    ):
        with pytest.raises(ValueError, match=word):
            bounded(z)


@pytest.mark.parametrize("parametrization", ["softmax", "bounds"])
@pytest.mark.parametrize("reach", [None, 0.8])
@pytest.mark.parametrize("debias", [False, True])
def test_products_in_the_weights_of_a_grid(parametrization, reach, debias):
    rng = np.random.default_rng(3)
    x, y = epsot.Grid((3, 4), spacing=0.25), epsot.Grid((2, 5), spacing=0.2)
    obj = epsot.Objective(
        y, rng.dirichlet(np.ones(10)).reshape(2, 5), x=x, blur=0.3, wrt="a", parametrization=parametrization,
        reach=reach, debias=debias, tol=1e-10, hessian_tol=1e-10,
    )  # fmt: skip
    z, p, step = rng.random(12) + 0.5, rng.normal(size=12), 1e-4
    wanted = (obj(z + step * p)[1] - obj(z - step * p)[1]) / (2 * step)
    found = obj.hessp(z, p)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert obj.variable(z).shape == (3, 4)
