"""`epsot.jax`: transformations of JAX find the gradients of results, and nothing is a constant in silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import epsot
from tests.libraries import Lazily, needs

jax, jnp, bridge = map(Lazily, ("jax", "jax.numpy", "epsot.jax"))
pytestmark = needs("jax")

EXACT: dict[str, Any] = {"blur": 0.4, "tol": 1e-12, "max_iter": 5000}
ENTRIES = ["sinkhorn", "sinkhorn_divergence"]


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(
    params=[pytest.param(ENTRIES[0], marks=pytest.mark.every, id="biased"), pytest.param(ENTRIES[1], id="debiased")]
)
def loss(request: pytest.FixtureRequest) -> Any:
    return getattr(bridge, request.param)


def draw(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng([seed, *shape]).random(shape))


def close(found: Any, desired: Any, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, desired, rtol=1e-7, atol=atol)


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The solves that are made."""
    made: list[Any] = []
    run = bridge.Loss.run

    def counted(self: Any, *args: Any) -> Any:
        made.append(args)
        return run(self, *args)

    monkeypatch.setattr(bridge.Loss, "run", counted)
    monkeypatch.setattr("epsot.jax.solves", bridge.Solves())
    return made


@pytest.mark.parametrize("entry", ENTRIES, ids=["biased", "debiased"])
@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_slopes_are_those_of_the_result(entry: str, compiled: bool, solves: list[Any]) -> None:
    ours, numpys = getattr(bridge, entry), getattr(epsot, entry)
    given = draw(7, 2), draw(5, 2), draw(7), draw(5)
    result = numpys(*map(np.asarray, given), reach=0.8, **EXACT)
    function = jax.value_and_grad(lambda *z: ours(*z, reach=0.8, **EXACT), argnums=(0, 1, 2, 3))
    value, slopes = (jax.jit(function) if compiled else function)(*given)
    assert float(value) == result.value
    for slope, name in zip(slopes, "xyab", strict=True):
        np.testing.assert_array_equal(slope, getattr(result, f"grad_{name}"))
    assert len(solves) == 1  # value and slopes come of one


def test_first_and_second_derivatives(loss: Any) -> None:
    x, y, z = draw(4, 2), draw(3, 2), draw(4)

    def function(x: Any, y: Any, z: Any) -> Any:
        return loss(x, y, jax.nn.softmax(z), **EXACT)

    check_grads = Lazily("jax.test_util").check_grads
    check_grads(jax.jit(function), (x, y, z), 1, modes=("fwd",))
    check_grads(jax.jit(function), (x, y, z), 2, modes=("rev",), eps=1e-5)
    check_grads(lambda z: loss(z, z[:3] ** 2, **EXACT), (x,), 1, modes=("rev",))  # the sum of two gradients


def test_all_ways_to_a_hessian_agree(loss: Any, solves: list[Any]) -> None:
    x, y = draw(4, 2), draw(3, 2)

    def function(x: Any) -> Any:
        return loss(x, y, **EXACT)

    expected = jax.jit(jax.hessian(function))(x)
    assert len(solves) <= 2  # all products share theirs
    for outer, inner in product((jax.jacfwd, jax.jacrev), repeat=2):
        close(outer(inner(function))(x), expected)
    v, u = draw(4, 2, seed=1), draw(4, 2, seed=2)

    def multiply(v: Any) -> Any:
        return jax.jvp(jax.grad(function), (x,), (v,))[1]

    close(multiply(v), jnp.einsum("ijkl,kl->ij", expected, v))
    close(jax.grad(lambda v: jnp.vdot(multiply(v), u))(v), multiply(u))  # products have a derivative in their direction
    both = jax.grad(lambda x, y: loss(x, y, **EXACT), argnums=(0, 1))
    for part in (0, 1):  # and of several, in one

        def pulled(w: Any, part: int = part) -> Any:
            upstream = (w, 0 * y) if part == 0 else (0 * x, w)
            return jax.vjp(both, x, y)[1](upstream)[0]

        w = (v, y)[part]
        close(jax.jvp(pulled, (w,), (w,))[1], pulled(w))


def test_a_product_is_no_constant_where_the_measures_move(loss: Any) -> None:
    """Nor where its direction moves with them."""
    x, y, v = draw(3, 2), draw(2, 2), draw(3, 2, seed=1)

    def slope(x: Any) -> Any:
        return jax.grad(lambda x: loss(x, y, **EXACT))(x)

    def penalty(x: Any) -> Any:
        return jnp.sum(slope(x) ** 2)

    found, t = jnp.vdot(jax.grad(penalty)(x), v), 1e-4
    close(found, (penalty(x + t * v) - penalty(x - t * v)) / (2 * t), 1e-6)
    for function in (lambda x: jnp.sum(jax.grad(penalty)(x) ** 2), lambda x: jnp.sum(jax.vjp(slope, x)[1](x**2)[0])):
        with pytest.raises(TypeError, match="no third derivative"):
            jax.grad(function)(x)
        with pytest.raises(TypeError, match="no third derivative"):
            jax.jvp(function, (x,), (v,))


def test_maps_are_batches(loss: Any, solves: list[Any]) -> None:
    x, y, z = draw(3, 4, 2), draw(3, 2), draw(2, 4)

    def function(x: Any, z: Any) -> Any:
        return loss(x, y, jax.nn.softmax(z), **EXACT)

    grad = jax.grad(function, argnums=(0, 1))
    both = jax.jit(jax.vmap(jax.vmap(grad, in_axes=(None, 0)), in_axes=(0, None)))(x, z)
    assert len(solves) == 1
    hessians = jax.vmap(jax.hessian(function), in_axes=(0, None))(x, z[0])
    for i in range(3):
        for j in range(2):
            for found, expected in zip(both, grad(x[i], z[j]), strict=True):
                close(found[i, j], expected)
        close(hessians[i], jax.hessian(function)(x[i], z[0]))
    values = jax.vmap(lambda z: loss(x, y, jax.nn.softmax(z), **EXACT))(z)  # a mapped axis beside one of the batch
    close(values, [[function(x[i], z[j]) for i in range(3)] for j in range(2)])
    blurs = jax.vmap(lambda blur: loss(x[0], y, blur=blur))(jnp.asarray([0.3, 0.5]))
    close(blurs, [loss(x[0], y, blur=blur) for blur in (0.3, 0.5)])


def test_options_may_be_traced_but_have_no_derivative(loss: Any) -> None:
    x, y = draw(4, 2), draw(3, 2)
    call = jax.jit(lambda blur, reach: loss(x, y, blur=blur, reach=(None, reach)))
    for blur in (0.3, 0.4):
        close(call(blur, 0.9), loss(x, y, blur=blur, reach=(None, 0.9)), 0)
    assert call._cache_size() == 1
    with pytest.raises(TypeError, match="no derivative in its options"):
        jax.grad(lambda blur: loss(x, y, blur=blur))(0.3)


@pytest.mark.parametrize("transforms", list(product(("jacfwd", "jacrev"), repeat=3)), ids="-".join)
def test_third_derivatives_raise(loss: Any, transforms: Any) -> None:
    x, y = draw(3, 2), draw(2, 2)
    function: Any = lambda x: loss(x, y, **EXACT)  # noqa: E731
    for transform in transforms:
        function = getattr(jax, transform)(function)
    with pytest.raises(TypeError, match=r"no third derivative.*stop_gradient"):
        function(x)


def test_types() -> None:
    """Points of one type, weights of their own; without x64 all is float32."""
    x, y, a = draw(6, 2).astype(jnp.float32), draw(5, 2).astype(jnp.bfloat16), jnp.full(6, 1 / 6)

    def function(x: Any, y: Any, a: Any) -> Any:
        return bridge.sinkhorn_divergence(x, y, a, blur=0.3, reach=1.0)

    value, slopes = jax.value_and_grad(function, argnums=(0, 1, 2))(x, y, a)
    assert [z.dtype for z in (value, *slopes)] == [jnp.float32, jnp.float32, jnp.bfloat16, jnp.float64]
    with jax.enable_x64(False):
        narrow = jnp.asarray(np.asarray(x))
        slope = jax.jit(jax.grad(lambda x: bridge.sinkhorn_divergence(x, narrow[:3], blur=0.3)))(narrow)
        assert slope.dtype == jnp.float32
        hessian = jax.hessian(lambda x: bridge.sinkhorn_divergence(x, narrow[:3], blur=0.3, tol=1e-5))(narrow)
    wide_x = jnp.asarray(np.asarray(x, dtype=float))
    exact = jax.hessian(lambda x: bridge.sinkhorn_divergence(x, wide_x[:3], blur=0.3, tol=1e-9))(wide_x)
    np.testing.assert_allclose(hessian, exact, atol=2e-3)
    assert bridge.sinkhorn([[0, 0], [1, 1]], np.ones((3, 2)), blur=0.3).dtype == jnp.float64


def test_arrays_of_the_host_are_views(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    solve = bridge.solve_on_host
    monkeypatch.setattr("epsot.jax.solve_on_host", lambda *args: seen.append(args[3]) or solve(*args))
    x, y = draw(64, 3), draw(32, 3)
    bridge.sinkhorn(x, y, blur=0.5)
    assert np.asarray(seen[0][0]).ctypes.data == x.unsafe_buffer_pointer()


def test_errors_are_those_of_epsot(loss: Any) -> None:
    x = draw(3, 2)
    with pytest.raises(ValueError, match="`blur` must be positive"):
        loss(x, x, blur=-1.0)
    with pytest.raises(Exception, match="`blur` must be positive"):
        jax.jit(lambda x: loss(x, x, blur=-1.0))(x).block_until_ready()
    with pytest.raises(ValueError, match=r"`y` must be an array of shape \(\.\.\., n, d\), got shape \(3,\)"):
        loss(x, x[:, 0], blur=1.0)
    with pytest.raises(TypeError, match="`init` must be None"):
        loss(x, x, blur=1.0, init=epsot.sinkhorn(np.asarray(x), np.asarray(x), blur=1.0))
    with pytest.raises(TypeError, match="blurr"):
        loss(x, x, blurr=1.0)


def test_importing_without_jax_names_the_extra() -> None:
    code = "import sys; sys.modules['jax'] = None; import epsot; import epsot.jax"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: `epsot.jax` needs JAX, which `pip install epsot[jax]` brings" in run.stderr


def test_a_grid_is_refused_by_its_name() -> None:
    grid = epsot.Grid((2, 3))
    with pytest.raises(TypeError, match="`x` must be an array here, got a Grid; pass its `points`"):
        bridge.sinkhorn(grid, grid, blur=0.3)
