"""What comes in as an array of one library, on one device and in one dtype, comes out as one, with NumPy's numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import array_api_strict as strict
import numpy as np
import pytest
from array_api_extra.testing import assert_close, assert_equal

import epsot
from epsot import kernels
from epsot.geometry import Multiscale
from tests.conftest import give_memory_back
from tests.own_costs import PseudoHuber

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

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.from_dlpack(array) if self.xp is strict else np.asarray(array)

    def check(self, actual: Any, desired: Any, dtype: str = "float64", atol: float = 1e-10, message: str = "") -> None:
        """Library, device, dtype, shape and numbers."""
        expected = self.array(np.asarray(desired), dtype)
        assert_close(actual, expected, rtol=atol, atol=atol, err_msg=message)
        if self.device is not None:
            assert actual.device == self.device, message


VIEWED = ["torch", "jax"]  # on the CPU NumPy's kernels work on them by a view
PORTABLE = ["strict", "strict-device", "torch-portable"]


@pytest.fixture(params=PORTABLE + VIEWED)
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A library; "portable": its arrays as they are worked on where NumPy has no view of them."""
    library, _, how = request.param.partition("-")
    if how == "portable":
        monkeypatch.setattr("epsot.arrays.works_by_view", lambda library: False)
    if library == "torch":
        torch = pytest.importorskip("torch")
        yield Home(torch, torch.device("cpu"))
    elif library == "jax":
        jax = pytest.importorskip("jax")
        with jax.enable_x64(True):
            if how == "portable":  # where each operation becomes a program for each shape
                give_memory_back()
            yield Home(jax.numpy, jax.devices("cpu")[0])
            if how == "portable":
                give_memory_back()
    else:

        def refuse(*_: Any) -> None:
            raise TypeError("arrays of some libraries are immutable")

        monkeypatch.setattr(type(strict.ones(1)), "__setitem__", refuse)
        yield Home(strict, strict.Device("device1" if how == "device" else "CPU_DEVICE"))


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


@cache
def ours_of_clouds(entry: Any, p: int, reach: Any) -> tuple[Any, dict[str, Any]]:
    ours = entry(X, Y, A, B, blur=0.6, p=p, reach=reach, **EXACT)
    return ours, of_any(ours) | of_clouds(ours, POINTS)


@pytest.mark.parametrize("entry", [epsot.sinkhorn, epsot.sinkhorn_divergence])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reach", [None, 1.5, (None, 0.8)])
def test_clouds(home: Home, entry: Any, p: int, reach: Any) -> None:
    ours, desired = ours_of_clouds(entry, p, reach)
    theirs = entry(*map(home.array, (X, Y, A, B)), blur=0.6, p=p, reach=reach, **EXACT)
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


@pytest.mark.parametrize(
    "cost", ["sqeuclidean", "euclidean", pytest.param("cityblock", marks=pytest.mark.every), "cosine"]
)
def test_named_costs(home: Home, cost: str) -> None:
    ours = epsot.divergence(epsot.PointCloud(X, Y, cost=cost), A, B, eps=0.2, **EXACT)
    geometry = epsot.PointCloud(home.array(X), home.array(Y), cost=cost)
    theirs = epsot.divergence(geometry, home.array(A), home.array(B), eps=0.2, **EXACT)
    desired = of_any(ours) | of_clouds(ours, POINTS)
    for name, value in (of_any(theirs) | of_clouds(theirs, home.array(POINTS))).items():
        home.check(value, desired[name], message=name)


@cache
def ours_of_cells(d: int) -> tuple[Any, dict[str, Any]]:
    """The points, the options, and what comes of them."""
    several = np.random.default_rng(d)
    x, y, a = several.random((120, d)), several.random((100, d)), several.random(120)
    options: dict[str, Any] = {"eps": 0.05, "tol": 1e-11, "max_iter": 5000}
    ours = epsot.divergence(Multiscale(x, y), a / a.sum(), **options)
    return (x, y, a / a.sum(), options), of_any(ours) | of_clouds(ours, x[:3])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_coarse_to_fine(home: Home, d: int) -> None:
    """Cells are sorted, summed and carried in the library and on the device of the points."""
    (x, y, a, options), desired = ours_of_cells(d)
    theirs = epsot.divergence(Multiscale(home.array(x), home.array(y)), home.array(a), **options)
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


def kernel_of(x: Any, y: Any) -> str:
    return type(epsot.sinkhorn(x, y, blur=0.5).instance.problem.kernel).__module__


@pytest.mark.parametrize("home", VIEWED, indirect=True)
def test_the_cpu_arrays_of_others_are_served_by_the_fused_kernels_too(home: Home) -> None:
    assert kernel_of(home.array(X), home.array(Y)).startswith("epsot.kernels.cpu")


@pytest.mark.parametrize("home", PORTABLE, indirect=True)
def test_all_others_are_served_by_the_portable_ones(home: Home) -> None:
    assert kernels.backend_of(home.array(X)) == "tiled"
    assert kernel_of(home.array(X), home.array(Y)) == "epsot.kernels.tiled"


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
    """Gradients come from formulas: tensors that require gradients are read, with a word, and results require none."""
    torch = pytest.importorskip("torch")
    x = torch.asarray(X).clone().requires_grad_()
    y = torch.nn.Parameter(torch.asarray(Y).clone())
    a = torch.asarray(A).clone().requires_grad_()
    with torch.no_grad():
        result = epsot.sinkhorn_divergence(x, y, a, torch.asarray(B), blur=0.6)  # nothing is recorded, nothing missed
    with pytest.warns(UserWarning, match="`x` and `y` and `a` requires grad.*no graph.*grad_x.*detach") as told:
        again = epsot.sinkhorn_divergence(x, y, a, torch.asarray(B), blur=0.6)
    assert [warning.filename for warning in told] == [__file__]  # one, at this line
    assert float(again.value) == float(result.value)
    plan = result.plan
    with pytest.warns(UserWarning, match="`v` requires grad"):
        product = plan @ y
    for value in [*of_any(result).values(), *of_clouds(result, x[:3].detach()).values(), product, *plan.sample(3)]:
        assert not value.requires_grad
    assert x.requires_grad
    assert x.grad is None
    plain = epsot.sinkhorn_divergence(*(z.detach() for z in (x, y, a)), torch.asarray(B), blur=0.6)
    assert torch.equal(plain.grad_x, result.grad_x)


@pytest.mark.parametrize("reads", ["init", "points", "matrix", "objective", "transport"])
def test_every_way_in_says_once_that_nothing_is_recorded(reads: str) -> None:
    torch = pytest.importorskip("torch")
    x, y = torch.asarray(X), torch.asarray(Y)
    z = x.clone().requires_grad_()
    solved = epsot.sinkhorn_divergence(x, y, blur=0.6)
    calls = {
        "init": lambda: epsot.sinkhorn_divergence(z, z, blur=0.6, init=solved),
        "points": lambda: epsot.PointCloud(z, y),
        "matrix": lambda: epsot.CostMatrix(C=z),
        "objective": lambda: epsot.Objective(z, blur=0.6),
        "transport": lambda: solved.transport(z),
    }
    with pytest.warns(UserWarning, match="requires grad") as told:
        calls[reads]()
    assert len(told) == 1
    assert told[0].filename == __file__
    if reads == "init":
        assert float(epsot.sinkhorn_divergence(x, x, blur=0.6).value) == 0


def test_a_cost_with_parameters_says_once_that_nothing_is_recorded() -> None:
    torch = pytest.importorskip("torch")

    class Weighted(epsot.Cost):
        degree = 2.0

        def __init__(self) -> None:
            self.scales = torch.nn.Parameter(torch.asarray([1.0, 2.0], dtype=torch.float64))

        def value(self, x: Any, y: Any) -> Any:
            return (self.scales * (x - y) ** 2).sum(-1)

        def gradient(self, x: Any, y: Any) -> Any:
            return 2 * self.scales * (x - y)

    scaled = np.asarray([1.0, 2.0]) ** 0.5
    ours = epsot.solve(epsot.PointCloud(X * scaled, Y * scaled, cost="sqeuclidean"), eps=0.3)
    with pytest.warns(UserWarning, match=r"`cost` returns requires grad.*no_grad") as told:
        theirs = epsot.solve(epsot.PointCloud(torch.asarray(X), torch.asarray(Y), cost=Weighted()), eps=0.3)
        theirs.grad_x  # noqa: B018
    assert [warning.filename for warning in told] == [__file__]
    assert not theirs.value.requires_grad
    np.testing.assert_allclose(float(theirs.value), ours.value, rtol=1e-3)


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


@pytest.mark.parametrize("name", ["float8_e4m3fn", "complex64"])
def test_torch_dtypes_that_are_refused(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.asarray(X).to(getattr(torch, name))
    with pytest.raises(TypeError, match=f"`x` must be real, float32 or float64, got (torch.)?{name}"):
        epsot.sinkhorn(x, torch.asarray(Y), blur=0.5)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("home", ["torch", "jax", "torch-portable"], indirect=True)
def test_half_precision_is_promoted(home: Home, name: str) -> None:
    """To float32, exactly, points, weights and operands; b sums to 1 as well as half precision can."""
    x, y, a, b = (home.array(z, name) for z in (X, Y, A, B))
    wide = [home.xp.asarray(z, dtype=home.xp.float32) for z in (x, y, a, b)]
    theirs, plain = (epsot.sinkhorn(*z, blur=0.5, reach=2.0) for z in ((x, y, a, b), wide))
    for value, desired in zip(of_any(theirs).values(), of_any(plain).values(), strict=True):
        assert value.dtype == home.xp.float32
        assert_equal(value, desired)
    assert_equal(theirs.plan @ b, plain.plan @ wide[3])
    assert epsot.sinkhorn(x, y, a, b, blur=0.5).success  # masses that differ by rounding


def test_results_are_the_user_s_own_memory() -> None:
    """Writing into a result, or into the points afterwards, changes nothing that is read later."""
    torch = pytest.importorskip("torch")
    x, y = torch.asarray(X).clone(), torch.asarray(Y).clone()
    result = epsot.sinkhorn(x, y, blur=0.5)
    kept = {name: value.clone() for name, value in (of_any(result) | of_clouds(result, torch.asarray(POINTS))).items()}
    for value in (of_any(result) | of_clouds(result, torch.asarray(POINTS))).values():
        value.fill_(7)
    for points in (x, y):
        points.zero_()
    for name, value in (of_any(result) | of_clouds(result, torch.asarray(POINTS))).items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_torch_transforms_are_refused(transform: str) -> None:
    torch = pytest.importorskip("torch")

    def loss(x: Any) -> Any:
        with torch.no_grad():
            return epsot.sinkhorn(x, torch.asarray(Y), blur=0.5).value

    with pytest.raises(TypeError, match="`x` is a tensor without numbers of its own"):
        getattr(torch.func, transform)(loss)(torch.asarray(X if transform == "grad" else X[None]))


def test_sparse_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"`C` is a sparse tensor.*`C.to_dense\(\)`"):
        epsot.CostMatrix(torch.asarray(C_XX).to_sparse())


def test_tensors_without_numbers_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="`x` is a tensor on the device `meta`"):
        epsot.sinkhorn(torch.asarray(X, device="meta"), torch.asarray(X, device="meta"), blur=0.1)


# JAX


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax")


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16"])
def test_jax_without_x64(jax: Any, dtype: str) -> None:
    """It knows no float64: results are float32, of what NumPy gives for the same numbers."""
    x, y = (jax.numpy.asarray(np.rint(4 * z), dtype=dtype) for z in (X, Y))
    points = jax.numpy.asarray(POINTS, dtype="float32")
    ours = epsot.sinkhorn_divergence(np.rint(4 * X), np.rint(4 * Y), A, B, blur=2.0, tol=1e-6)
    theirs = epsot.sinkhorn_divergence(x, y, list(A), jax.numpy.asarray(B), blur=2.0, tol=1e-6)
    desired = of_any(ours) | of_clouds(ours, np.asarray(points))
    for name, value in (of_any(theirs) | of_clouds(theirs, points)).items():
        assert value.dtype == jax.numpy.float32, name
        assert_close(value, jax.numpy.asarray(desired[name], dtype="float32"), rtol=1e-4, atol=1e-5, err_msg=name)
    assert theirs.plan.dtype == jax.numpy.float32
    i, j = theirs.plan.sample(20, rng=3)
    np.testing.assert_array_equal(i, ours.plan.sample(20, rng=3)[0])
    assert isinstance(j, jax.Array)


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_jax_tracers_are_refused(jax: Any, transform: str) -> None:
    x, y = jax.numpy.asarray(X if transform != "vmap" else X[None]), jax.numpy.asarray(Y)
    with pytest.raises(TypeError, match=r"`x` is a JAX tracer, which has no numbers.*jax.jit.*pure_callback"):
        getattr(jax, transform)(lambda z: epsot.sinkhorn(z, y, blur=0.5).value)(x)
    with pytest.raises(TypeError, match="`a` is a JAX tracer"):
        jax.jit(lambda a: epsot.sinkhorn(X, Y, a, blur=0.5).value)(jax.numpy.asarray(A))


@pytest.mark.every  # hundreds of programs
@pytest.mark.parametrize("home", ["jax-portable"], indirect=True)
def test_jax_where_numpy_has_no_view_of_it(home: Home) -> None:
    """As on a GPU, on the portable path: its arrays are immutable."""
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT)
    theirs = epsot.sinkhorn(*map(home.array, (X, Y, A, B)), blur=0.6, **EXACT)
    for name in ("value", "f", "grad_x"):
        home.check(getattr(theirs, name), getattr(ours, name), message=name)


def test_jax_and_numpy_do_not_mix(jax: Any) -> None:
    with pytest.raises(TypeError, match=r"one library.*`x` is a numpy ndarray.*`y` is a jaxlib ArrayImpl"):
        epsot.sinkhorn(X, jax.numpy.asarray(Y), blur=0.5)
    plan = epsot.sinkhorn(jax.numpy.asarray(X), jax.numpy.asarray(Y), blur=0.5).plan
    with pytest.raises(TypeError, match=r"one library.*`v` is a numpy ndarray.*`the plan` is a jaxlib ArrayImpl"):
        plan @ B


@pytest.mark.parametrize("home", VIEWED, indirect=True)
def test_a_result_of_another_library_is_no_start(home: Home) -> None:
    """Even where NumPy's kernels work on both; but those of NumPy are, since that is what files hold."""
    ours, theirs = (epsot.sinkhorn(x, y, blur=0.5) for x, y in ((X, Y), (home.array(X), home.array(Y))))
    with pytest.raises(TypeError, match="`init` must be a result of the same array library"):
        epsot.sinkhorn(X, Y, blur=0.5, init=theirs)
    assert epsot.sinkhorn(home.array(X), home.array(Y), blur=0.5, init=ours).nit == 1


# What goes back


def test_exports_of_cpu_arrays_are_scipy_s(home: Home) -> None:
    """A sparse array and a linear operator of SciPy, for libraries that NumPy has a view of."""
    if home.xp is strict or "tiled" in kernel_of(home.array(X), home.array(Y)):
        pytest.skip("no view")
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan
    theirs = epsot.sinkhorn(*map(home.array, (X, Y, A, B)), blur=0.6, **EXACT).plan
    np.testing.assert_array_equal(theirs.to_sparse().toarray(), ours.to_sparse().toarray())
    np.testing.assert_array_equal(theirs.as_linear_operator() @ B, ours @ B)
    np.testing.assert_array_equal(theirs.as_linear_operator().rmatvec(A), ours.T @ A)


def test_an_objective_of_any_library(home: Home) -> None:
    """Flat NumPy vectors in and out, variables and results in the library of the target."""
    for options, z in (({"a": A}, X.ravel()), ({"wrt": "a", "x": X}, A), ({"wrt": "a", "x": X, "reach": 1.5}, A - 1)):
        theirs_options = {name: home.array(o) if isinstance(o, np.ndarray) else o for name, o in options.items()}
        ours = epsot.Objective(Y, B, blur=0.6, tol=1e-10, **options)
        theirs = epsot.Objective(home.array(Y), home.array(B), blur=0.6, tol=1e-10, **theirs_options)
        for scale in (1.0, 1.1):
            value, gradient = theirs(scale * z)
            desired, desired_gradient = ours(scale * z)
            assert type(value) is float
            np.testing.assert_allclose(value, desired, rtol=1e-8)
            np.testing.assert_allclose(gradient, desired_gradient, rtol=1e-7, atol=1e-8)
        home.check(theirs.variable(z), ours.variable(z))
        home.check(theirs.last.f, ours.last.f, atol=1e-7)


def test_plans_are_indexed_in_any_library(home: Home) -> None:
    ours = epsot.sinkhorn(X, Y, A, B, blur=0.6, **EXACT).plan
    theirs = epsot.sinkhorn(*map(home.array, (X, Y, A, B)), blur=0.6, **EXACT).plan
    dense, i, j = ours.to_dense(), np.asarray([5, 0, -1]), np.asarray([2, -6, 0])
    for index in ((3, 1), (2, slice(1, 4)), (slice(None), 2), (slice(1, 8, 2), slice(0, 2)), (i, j), (i, 1), (0, j)):
        actual = theirs[tuple(home.array(part) if isinstance(part, np.ndarray) else part for part in index)]
        home.check(actual, dense[index], message=str(index))
    home.check(theirs[-2], dense[-2])
    np.testing.assert_allclose(list(map(np.asarray, map(home.to_numpy, theirs))), dense, atol=1e-12)


def test_a_cost_is_called_in_the_library_of_the_user(home: Home) -> None:
    """Not with NumPy's arrays, where those are what the kernels work on; values may come as any array of it."""
    seen = set()

    class Quartic(epsot.Cost):
        degree = 4.0

        def value(self, x: Any, y: Any) -> Any:
            seen.update((type(x), type(y)))
            return home.xp.sum((x - y) ** 4, axis=-1)

        def gradient(self, x: Any, y: Any) -> Any:
            seen.update((type(x), type(y)))
            return 4 * (x - y) ** 3

    class Dense(epsot.Cost):
        degree = 4.0

        def value(self, x: Any, y: Any) -> Any:
            return np.sum((x - y) ** 4, axis=-1)

        def gradient(self, x: Any, y: Any) -> Any:
            return 4 * (x - y) ** 3

    ours = epsot.divergence(epsot.PointCloud(X, Y, cost=Dense()), A, B, eps=0.5, **EXACT)
    geometry = epsot.PointCloud(home.array(X), home.array(Y), cost=Quartic())
    theirs = epsot.divergence(geometry, home.array(A), home.array(B), eps=0.5, **EXACT)
    home.check(theirs.value, ours.value)
    home.check(theirs.grad_x, ours.grad_x)
    home.check(theirs.transport(home.array(POINTS)), ours.transport(POINTS))
    assert seen == {type(home.array(X))}
    assert repr(geometry) == repr(epsot.PointCloud(home.array(X), home.array(Y), cost=Quartic()))
