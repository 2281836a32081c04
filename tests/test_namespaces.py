"""What comes in as an array of one library, on one device and in one dtype, comes out as one, with NumPy's numbers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import array_api_strict as strict
import numpy as np
import pytest
from array_api_extra.testing import assert_close, assert_equal

import epsot
from epsot import kernels
from epsot.geometry import Multiscale

rng = np.random.default_rng(2)
X, Y = rng.normal(size=(8, 2)), rng.normal(size=(6, 2)) + 0.5
A, B = np.asarray([3, 1, 4, 0, 1, 5, 0, 2]) / 16, np.asarray([2, 0, 7, 1, 8, 2]) / 20
POINTS = rng.normal(size=(3, 2))
C = rng.random((8, 6))
C[0, 1] = np.inf
C_XX, C_YY = np.abs(np.subtract.outer(A, A)), np.abs(np.subtract.outer(B, B))
EXACT: dict[str, Any] = {"tol": 1e-12, "max_iter": 5000}


class Home(NamedTuple):
    """A library and a device in it."""

    xp: Any
    device: Any

    def array(self, array: Any, dtype: str | None = None) -> Any:
        return self.xp.asarray(array, device=self.device, dtype=dtype and getattr(self.xp, dtype))

    def check(self, actual: Any, desired: Any, dtype: str = "float64", atol: float = 1e-10, message: str = "") -> None:
        """Library, device, dtype, shape and numbers."""
        expected = self.array(np.asarray(desired), dtype)
        assert_close(actual, expected, rtol=atol, atol=atol, err_msg=message)
        if self.device is not None:
            assert actual.device == self.device, message


@pytest.fixture(params=["strict", "strict-device", "torch"])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "torch":
        torch = pytest.importorskip("torch")
        return Home(torch, torch.device("cpu"))
    return Home(strict, strict.Device("device1") if request.param == "strict-device" else strict.Device("CPU_DEVICE"))


def of_any(result: Any) -> dict[str, Any]:
    """What every solve gives."""
    plan = result.plan
    return {
        "value": result.value,
        "f": result.f,
        "g": result.g,
        "grad_a": result.grad_a,
        "grad_b": result.grad_b,
        "dual": result.dual,
        "primal": result.primal,
        "gap": result.gap,
        "plan @ v": plan @ result.g,
        "plan.T @ v": plan.T @ result.f,
        "sum": plan.sum(),
        "sum(axis=0)": plan.sum(axis=0),
        "sum(axis=1)": plan.sum(axis=1),
        "barycentric_map(v)": plan.barycentric_map(result.g),
        "rows(2)": plan.rows(2),
        "rows(-1)": plan.rows(-1),
        "rows(slice)": plan.rows(slice(1, 4)),
        "rows(list)": plan.rows([5, 0, -1]),
        "to_dense": plan.to_dense(),
    }


def of_clouds(result: Any, points: Any) -> dict[str, Any]:
    """What a solve of clouds gives besides."""
    return {
        "grad_x": result.grad_x,
        "grad_y": result.grad_y,
        "displacement": result.displacement,
        "barycentric_map": result.plan.barycentric_map(),
        "plan.T map": result.plan.T.barycentric_map(),
        "transport": result.transport(points),
        "potential": result.potential(points),
    }


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 1.5, (None, 0.8)])
def test_clouds(home: Home, entry: Any, p: int, reach: Any) -> None:
    options = {"blur": 0.6, "p": p, "reach": reach, **EXACT}
    ours = entry(X, Y, A, B, **options)
    theirs = entry(*map(home.array, (X, Y, A, B)), **options)
    desired = of_any(ours) | of_clouds(ours, POINTS)
    for name, value in (of_any(theirs) | of_clouds(theirs, home.array(POINTS))).items():
        home.check(value, desired[name], message=name)
    assert theirs.success
    assert isinstance(theirs.marginal_error, float)
    assert theirs.marginal_error <= 1e-12
    assert repr(theirs).splitlines()[1:3] == repr(ours).splitlines()[1:3]


@pytest.mark.parametrize("entry", [epsot.solve, epsot.divergence])
@pytest.mark.parametrize("rho", [None, 0.7])
def test_matrices(home: Home, entry: Any, rho: Any) -> None:
    ours = entry(epsot.CostMatrix(C, C_xx=C_XX, C_yy=C_YY), A, B, eps=0.2, rho=rho, **EXACT)
    geometry = epsot.CostMatrix(home.array(C), C_xx=home.array(C_XX), C_yy=home.array(C_YY))
    theirs = entry(geometry, home.array(A), home.array(B), eps=0.2, rho=rho, **EXACT)
    desired = of_any(ours)
    for name, value in of_any(theirs).items():
        home.check(value, desired[name], message=name)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_named_costs(home: Home, cost: str) -> None:
    ours = epsot.divergence(epsot.PointCloud(X, Y, cost=cost), A, B, eps=0.2, **EXACT)
    geometry = epsot.PointCloud(home.array(X), home.array(Y), cost=cost)
    theirs = epsot.divergence(geometry, home.array(A), home.array(B), eps=0.2, **EXACT)
    desired = of_any(ours) | of_clouds(ours, POINTS)
    for name, value in (of_any(theirs) | of_clouds(theirs, home.array(POINTS))).items():
        home.check(value, desired[name], message=name)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_coarse_to_fine(home: Home, d: int) -> None:
    """Cells are sorted, summed and carried in the library and on the device of the points."""
    several = np.random.default_rng(d)
    x, y, a = several.random((120, d)), several.random((100, d)), several.random(120)
    options: dict[str, Any] = {"eps": 0.05, "tol": 1e-11, "max_iter": 5000}
    ours = epsot.divergence(Multiscale(x, y), a / a.sum(), **options)
    theirs = epsot.divergence(Multiscale(home.array(x), home.array(y)), home.array(a / a.sum()), **options)
    desired = of_any(ours) | of_clouds(ours, x[:3])
    for name, value in (of_any(theirs) | of_clouds(theirs, home.array(x[:3]))).items():
        home.check(value, desired[name], atol=1e-8, message=name)
    assert theirs.success


def test_labels_of_clusters(home: Home) -> None:
    several = np.random.default_rng(0)
    x, y, ones, others = several.random((40, 5)), several.random((30, 5)), np.arange(40) % 6, np.arange(30) % 7
    ours = epsot.solve(Multiscale(x, y, labels_x=ones, labels_y=others), eps=0.05, tol=1e-11)
    clusters = Multiscale(*map(home.array, (x, y)), labels_x=home.array(ones), labels_y=home.array(others))
    theirs = epsot.solve(clusters, eps=0.05, tol=1e-11)
    home.check(theirs.f, ours.f, atol=1e-8)
    home.check(theirs.displacement, ours.displacement, atol=1e-8)


def test_the_tutorial_s_schedule(home: Home) -> None:
    """tol=None: no tolerance hides a difference, every sweep counts."""
    options: dict[str, Any] = {"blur": 0.2, "tol": None, "scaling": 0.7}
    ours = epsot.sinkhorn_divergence(X, Y, A, B, **options)
    theirs = epsot.sinkhorn_divergence(*map(home.array, (X, Y, A, B)), **options)
    for name in ("value", "f", "g", "grad_x", "displacement"):
        home.check(getattr(theirs, name), getattr(ours, name), message=name)
    np.testing.assert_allclose(theirs.marginal_error, ours.marginal_error, rtol=1e-8)


def test_float32(home: Home) -> None:
    """Results have the dtype of the points, the weights and operands any real one; NumPy's numbers to rounding."""
    ours = epsot.sinkhorn_divergence(X, Y, A, B, blur=0.6, **EXACT)
    x, y = home.array(X, "float32"), home.array(Y, "float32")
    for dtype in ("float32", "float64"):
        theirs = epsot.sinkhorn_divergence(x, y, home.array(A, dtype), home.array(B, dtype), blur=0.6, tol=1e-5)
        desired = of_any(ours) | of_clouds(ours, POINTS)
        actual = of_any(theirs) | of_clouds(theirs, home.array(POINTS, dtype))
        for name, value in actual.items():
            home.check(value, desired[name], "float32", atol=1e-3, message=name)
    home.check(theirs.plan @ home.array(B), ours.plan @ B, "float32", atol=1e-5)


def test_integers_and_lists_beside_arrays(home: Home) -> None:
    """Lists follow the arrays they come with."""
    x, y, a, b = [[0, 3], [1, 2], [4, 4]], [[1, 1], [5, 0]], [1, 0, 3], [2, 2]
    ours = epsot.sinkhorn(x, y, a, b, blur=1, **EXACT)
    for theirs in (
        epsot.sinkhorn(home.array(x), y, a, b, blur=1, **EXACT),
        epsot.sinkhorn(x, home.array(y), a, home.array(b), blur=1, **EXACT),
        epsot.sinkhorn(home.array(x), home.array(y), home.array(a), b, blur=1, **EXACT),
    ):
        home.check(theirs.value, ours.value)
        home.check(theirs.grad_x, ours.grad_x)
        home.check(theirs.transport([[1, 2]]), ours.transport([[1, 2]]))
        home.check(theirs.plan @ [1, 2], ours.plan @ [1, 2])


@pytest.mark.parametrize("mode", ["independent", "stratified"])
def test_samples_are_numpy_s(home: Home, mode: Any) -> None:
    """The same seed draws the same pairs everywhere; they are integer arrays that index the clouds."""
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan.sample(50, rng=7, mode=mode)
    x, y = home.array(X), home.array(Y)
    theirs = epsot.sinkhorn(x, y, home.array(A), home.array(B), blur=0.6, **EXACT).plan.sample(50, rng=7, mode=mode)
    for actual, desired in zip(theirs, ours, strict=True):
        assert_equal(actual, home.array(desired))
        assert actual.device == home.device
    home.check(home.xp.take(x, theirs[0], axis=0) if home.xp is strict else x[theirs[0]], X[ours[0]])


def test_rows_by_an_array(home: Home) -> None:
    plan = epsot.sinkhorn(home.array(X), home.array(Y), blur=0.6).plan
    rows = plan.rows(home.array(np.asarray([3, -1, 0])))
    home.check(rows, np.asarray([[float(v) for v in plan.rows(i)] for i in (3, 7, 0)]))


def test_warm_start(home: Home) -> None:
    x, y = home.array(X), home.array(Y)
    for entry in (epsot.sinkhorn, epsot.sinkhorn_divergence):
        cold = entry(x, y, blur=0.3, tol=1e-8)
        warm = entry(x, y, blur=0.3, tol=1e-8, init=cold)
        assert warm.nit < cold.nit
        home.check(warm.value, np.asarray(float(cold.value)), atol=1e-8)
        other = entry(x[2:, ...], y, blur=0.3, tol=1e-8, init=cold)  # of another size: extended by its potentials
        home.check(other.value, np.asarray(entry(X[2:], Y, blur=0.3, tol=1e-8).value), atol=1e-7)


def test_callback(home: Home) -> None:
    kept: list[Any] = []
    epsot.sinkhorn(home.array(X), home.array(Y), home.array(A), home.array(B), blur=0.6, callback=kept.append)
    for record in kept:
        assert isinstance(record.marginal_error, float)
        for potential, size in ((record.f, 8), (record.g, 6)):
            assert potential.shape == (size,)
            assert potential.device == home.device
            assert isinstance(potential, type(home.array(A)))


def test_a_cost_in_array_api_code(home: Home) -> None:
    """A cost of the user's own runs in the library of the points, NumPy's included."""

    class PseudoHuber(epsot.Cost):
        degree = 1.0

        def value(self, x: Any, y: Any) -> Any:
            xp = __import__("array_api_compat").array_namespace(x, y)
            return xp.sqrt(1 + xp.sum((x - y) ** 2, axis=-1)) - 1

        def gradient(self, x: Any, y: Any) -> Any:
            return (x - y) / (self.value(x, y) + 1)[..., None]

    ours = epsot.divergence(epsot.PointCloud(X, Y, cost=PseudoHuber()), A, B, eps=0.1, **EXACT)
    geometry = epsot.PointCloud(home.array(X), home.array(Y), cost=PseudoHuber())
    theirs = epsot.divergence(geometry, home.array(A), home.array(B), eps=0.1, **EXACT)
    for name in ("value", "f", "grad_x", "grad_y"):
        home.check(getattr(theirs, name), getattr(ours, name), message=name)


# Which kernels serve whom


def test_numpy_is_served_by_the_fused_kernels() -> None:
    for dtype in (np.float32, np.float64):
        assert kernels.backend_of(X.astype(dtype)) == "cpu"
    result = epsot.sinkhorn(X, Y, blur=0.5)
    assert type(result.instance.problem.kernel).__module__.startswith("epsot.kernels.cpu")
    assert type(result.value) in (np.ndarray, np.float64)
    matrix = epsot.solve(epsot.CostMatrix(C), eps=0.5)
    assert type(matrix.instance.problem.kernel).__module__.startswith("epsot.kernels.cpu")


def test_all_others_are_served_by_the_portable_ones(home: Home) -> None:
    assert kernels.backend_of(home.array(X)) == "tiled"
    result = epsot.sinkhorn(home.array(X), home.array(Y), blur=0.5)
    assert type(result.instance.problem.kernel).__module__ == "epsot.kernels.tiled"


def test_importing_and_solving_load_no_other_library() -> None:
    """CuPy, Torch and matplotlib are for those who use them; Numba loads with the first solve."""
    script = (
        "import sys, epsot, numpy as np\n"
        "assert 'numba' not in sys.modules, 'import epsot loads numba'\n"
        "epsot.sinkhorn(np.ones((2, 1)), np.zeros((3, 1)), blur=0.5).plan.to_sparse()\n"
        "bad = {'cupy', 'torch', 'jax', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning:epsot", "-c", script], check=True, timeout=120)


# Torch


def test_torch_records_nothing() -> None:
    """Gradients come from formulas: tensors that require gradients are read, and results require none."""
    torch = pytest.importorskip("torch")
    x = torch.asarray(X).clone().requires_grad_()
    y = torch.nn.Parameter(torch.asarray(Y).clone())
    a = torch.asarray(A).clone().requires_grad_()
    result = epsot.sinkhorn_divergence(x, y, a, torch.asarray(B), blur=0.6)
    plan = result.plan
    points = x[:3]
    for value in [*of_any(result).values(), *of_clouds(result, points).values(), plan @ y, plan.sample(3, rng=0)[0]]:
        assert not value.requires_grad
    assert x.requires_grad
    assert x.grad is None
    plain = epsot.sinkhorn_divergence(*(z.detach() for z in (x, y, a)), torch.asarray(B), blur=0.6)
    assert torch.equal(plain.grad_x, result.grad_x)


def test_torch_scalars_are_numbers() -> None:
    torch = pytest.importorskip("torch")
    result = epsot.sinkhorn(X, Y, blur=torch.asarray(0.5), reach=torch.asarray(2.0), tol=torch.asarray(1e-3))
    assert result.value == epsot.sinkhorn(X, Y, blur=0.5, reach=2.0, tol=float(torch.asarray(1e-3))).value


def test_the_gradient_drives_autograd() -> None:
    """The recipe for a torch loss: hand the formula's gradient to a custom function; gradcheck agrees."""
    torch = pytest.importorskip("torch")
    y = torch.asarray(Y)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            result = epsot.sinkhorn_divergence(x, y, blur=0.8, **EXACT)
            ctx.save_for_backward(result.grad_x)
            return result.value

        @staticmethod
        def backward(ctx: Any, slope: Any) -> Any:
            return slope * ctx.saved_tensors[0]

    x = torch.asarray(X[:3]).clone().requires_grad_()
    assert torch.autograd.gradcheck(Loss.apply, (x,), eps=1e-5, atol=1e-7)


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_torch_layouts(layout: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.asarray(X)
    view = {
        "transposed": lambda: x.T.contiguous().T,
        "strided": lambda: torch.stack([x, x * torch.nan], dim=1).reshape(-1, 2)[::2],
        "expanded": lambda: x[:1].expand(8, 2),
    }[layout]()
    expected = epsot.sinkhorn(view.contiguous(), torch.asarray(Y), blur=0.5)
    assert torch.equal(epsot.sinkhorn(view, torch.asarray(Y), blur=0.5).grad_y, expected.grad_y)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "complex64"])
def test_torch_dtypes_that_are_refused(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.asarray(X).to(getattr(torch, name))
    with pytest.raises(TypeError, match=f"`x` must be real, float32 or float64, got torch.{name}"):
        epsot.sinkhorn(x, torch.asarray(Y), blur=0.5)
