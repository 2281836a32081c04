"""`epsot.torch`: the gradients of results are what autograd finds, and nothing is a constant in silence."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epsot
from tests.libraries import Lazily, needs

torch, bridge = map(Lazily, ("torch", "epsot.torch"))
pytestmark = [
    needs("torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # what PyTorch says of its own code
]

EXACT: dict[str, Any] = {"blur": 0.4, "tol": 1e-12, "max_iter": 5000}
SMALL = {"atol": 1e-6, "rtol": 1e-4}  # of gradgradcheck: differences of gradients of a solve to 1e-12
ENTRIES = ["sinkhorn", "sinkhorn_divergence"]


def draw(*shape: int, seed: int = 0) -> Any:
    return torch.tensor(np.random.default_rng([seed, *shape]).random(shape), requires_grad=True)


@pytest.fixture(
    params=[pytest.param(ENTRIES[0], marks=pytest.mark.every, id="biased"), pytest.param(ENTRIES[1], id="debiased")]
)
def loss(request: pytest.FixtureRequest) -> Any:
    return getattr(bridge, request.param)


def refuses(call: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# First derivatives


@pytest.mark.parametrize("entry", ENTRIES, ids=["biased", "debiased"])
def test_value_and_slopes_are_those_of_the_result(entry: str) -> None:
    ours, numpys = getattr(bridge, entry), getattr(epsot, entry)
    given = x, y, a, b = draw(7, 2), draw(5, 2), draw(7), draw(5)
    result = numpys(*(z.detach().numpy() for z in given), reach=0.8, **EXACT)
    value = ours(x, y, a, b, reach=0.8, **EXACT)
    assert value.item() == result.value
    (3 * value).backward()
    for z, name in zip(given, "xyab", strict=True):
        np.testing.assert_array_equal(z.grad, 3 * getattr(result, f"grad_{name}"))


def test_gradcheck(loss: Any) -> None:
    x, y, z = draw(5, 2), draw(4, 2), draw(5)

    def function(x: Any, y: Any, z: Any) -> Any:
        return loss(x, y, torch.softmax(z, 0), **EXACT)

    assert torch.autograd.gradcheck(function, (x, y, z), check_forward_ad=True)
    assert torch.autograd.gradcheck(function, (draw(2, 5, 2), y, z))  # what problems share gets the sum


def test_forward_mode_over_a_backward_without_a_graph(loss: Any) -> None:
    """Nothing else asks for the derivative of slopes there."""
    x, y, v = draw(6, 2), draw(5, 2).detach(), draw(6, 2).detach()
    with torch.autograd.forward_ad.dual_level():
        moving = torch.autograd.forward_ad.make_dual(x, v)
        (slope,) = torch.autograd.grad(loss(moving, y, **EXACT), moving)
        change = torch.autograd.forward_ad.unpack_dual(slope).tangent
    _, product = torch.autograd.functional.hvp(lambda x: loss(x, y, **EXACT), x.detach(), v)
    torch.testing.assert_close(change, product)


def test_a_shared_tensor_gets_the_sum_of_its_gradients(loss: Any) -> None:
    z = draw(6, 2)
    assert torch.autograd.gradcheck(lambda z: loss(z, z[:4] ** 2, **EXACT), z)
    w = z.detach().clone().requires_grad_()
    w.grad = None
    loss(w, w, **EXACT).backward()
    one, other = (z.detach().clone().requires_grad_() for _ in range(2))
    loss(one, other, **EXACT).backward()
    torch.testing.assert_close(w.grad, one.grad + other.grad)


@pytest.mark.parametrize("which", [(0,), (1,), (3,), (0, 2)])
def test_only_what_requires_grad_has_one(loss: Any, which: tuple[int, ...]) -> None:
    given = [z.detach() for z in (draw(6, 2), draw(5, 2), draw(6), draw(5))]
    for k in which:
        given[k].requires_grad_()
    loss(*given, reach=1.0, **EXACT).backward()
    assert [z.grad is not None for z in given] == [k in which for k in range(4)]


def test_a_mixed_loss_with_float32_weights_and_half_precision() -> None:
    x = draw(6, 2).detach().float().requires_grad_()
    a = torch.full((6,), 1 / 6, dtype=torch.float64, requires_grad=True)
    y = draw(5, 2).detach().to(torch.bfloat16).requires_grad_()
    value = bridge.sinkhorn_divergence(x, y, a, blur=0.3, reach=1.0)
    assert value.dtype == torch.float32
    (value + x.square().sum() + a.sum()).backward()
    assert (x.grad.dtype, y.grad.dtype, a.grad.dtype) == (torch.float32, torch.bfloat16, torch.float64)
    alone = x.detach().clone().requires_grad_()
    bridge.sinkhorn_divergence(alone, y.detach(), a.detach(), blur=0.3, reach=1.0).backward()
    torch.testing.assert_close(x.grad, alone.grad + 2 * x.detach())


def test_graphs_that_are_kept_and_modes_without(loss: Any) -> None:
    x, y = draw(6, 2), draw(5, 2).detach()
    value = loss(x, y, **EXACT)
    value.backward(retain_graph=True)
    once = x.grad.clone()
    value.backward()
    torch.testing.assert_close(x.grad, 2 * once)
    with torch.no_grad():
        assert not loss(x, y, **EXACT).requires_grad
    with torch.inference_mode():
        assert loss(x, y, **EXACT).item() == value.item()
    refuses(value.backward, RuntimeError, "second time|already been freed")


def test_memory_of_tensors_is_read_and_never_written(loss: Any) -> None:
    x, y = draw(6, 2).detach(), draw(5, 2).detach()
    strided = torch.stack([x, x * torch.nan], dim=1).reshape(-1, 2)[::2].requires_grad_()
    kept = strided.detach().clone()
    value = loss(strided, y, **EXACT)
    value.backward()
    assert torch.equal(strided.detach(), kept)
    assert value.item() == loss(x, y, **EXACT).item()


def test_batches_are_single_calls(loss: Any) -> None:
    x, y, a = draw(3, 6, 2), draw(5, 2), torch.softmax(draw(2, 1, 6), -1).detach()
    value = loss(x, y, a, blur=0.3, tol=1e-9)
    assert value.shape == (2, 3)
    (slope,) = torch.autograd.grad(value[1, 2], x)
    assert not slope[:2].any()
    alone = x[2].detach().requires_grad_()
    loss(alone, y, a[1, 0], blur=0.3, tol=1e-9).backward()
    torch.testing.assert_close(slope[2], alone.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which Dynamo reads
def test_a_compiled_function_breaks_its_graph_around_the_loss() -> None:
    x, y = draw(6, 2), draw(5, 2).detach()

    def function(x: Any) -> Any:
        return 2 * bridge.sinkhorn_divergence(torch.sin(x), y, **EXACT) + x.sum()

    (expected,) = torch.autograd.grad(function(x), x)
    (found,) = torch.autograd.grad(torch.compile(function, backend="eager")(x), x)
    torch.testing.assert_close(found, expected)


# Second derivatives


def test_gradgradcheck(loss: Any) -> None:
    x, y, z, b = draw(4, 2), draw(3, 2), draw(4), draw(3)
    check = torch.autograd.gradgradcheck
    assert check(lambda x, y, z: loss(x, y, torch.softmax(z, 0), **EXACT), (x, y, z), **SMALL)
    assert check(lambda x, y, a, b: loss(x, y, a, b, reach=1.0, **EXACT), (x, y, z, b), **SMALL)
    assert check(lambda x, y: loss(x, y, **EXACT), (draw(2, 4, 2), y), **SMALL)


def test_all_ways_to_a_hessian_agree(loss: Any) -> None:
    x, y = draw(4, 2).detach(), draw(3, 2).detach()
    rev, fwd, functional = torch.func.jacrev, torch.func.jacfwd, torch.autograd.functional

    def function(x: Any) -> Any:
        return loss(x, y, **EXACT)

    expected = functional.hessian(function, x)
    for found in (torch.func.hessian(function)(x), rev(rev(function))(x), rev(fwd(function))(x)):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    v = draw(4, 2, seed=1).detach()
    desired = torch.einsum("ijkl,kl->ij", expected, v)
    for multiply in (functional.hvp, functional.vhp):  # the first differentiates a product in its direction
        torch.testing.assert_close(multiply(function, x, v)[1], desired, rtol=1e-7, atol=1e-9)
    refuses(lambda: functional.hessian(function, x, vectorize=True), RuntimeError, "old vmap.*torch.func.hessian")
    refuses(lambda: fwd(fwd(function))(x), RuntimeError, "forward mode over forward mode")


def test_maps_are_batches(loss: Any) -> None:
    x, y, z = (w.detach() for w in (draw(3, 4, 2), draw(3, 2), draw(2, 4)))
    vmap, grad = torch.func.vmap, torch.func.grad

    def function(x: Any, z: Any) -> Any:
        return loss(x, y, torch.softmax(z, 0), **EXACT)

    both = vmap(vmap(grad(function, argnums=(0, 1)), in_dims=(None, 0)), in_dims=(0, None))(x, z)
    hessians = vmap(torch.func.hessian(function, argnums=(0, 1)), in_dims=(0, None))(x, z[0])
    for i in range(3):
        for j in range(2):
            for found, expected in zip(both, grad(function, argnums=(0, 1))(x[i], z[j]), strict=True):
                torch.testing.assert_close(found[i, j], expected, rtol=1e-7, atol=1e-9)
        single = torch.func.hessian(function, argnums=(0, 1))(x[i], z[0])
        for of, along in product(range(2), range(2)):
            torch.testing.assert_close(hessians[of][along][i], single[of][along], rtol=1e-6, atol=1e-8)


def test_a_gradient_penalty_is_no_constant(loss: Any) -> None:
    x, y = draw(5, 2), draw(4, 2).detach()

    def penalised(x: Any) -> Any:
        value = loss(x, y, **EXACT)
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return value + slope.square().sum()

    (found,) = torch.autograd.grad(penalised(x), x)
    v, t = draw(5, 2, seed=2).detach(), 1e-4
    ends = [penalised((x + s * t * v).detach().requires_grad_()).item() for s in (1, -1)]
    np.testing.assert_allclose(torch.sum(found * v).item(), (ends[0] - ends[1]) / (2 * t), rtol=1e-6)


def test_what_is_not_known_raises(loss: Any) -> None:
    """Third derivatives, however one comes to them; derivatives in options."""
    x, y = draw(3, 1), draw(2, 1).detach()
    for transforms in product((torch.func.jacfwd, torch.func.jacrev), repeat=3):
        function: Any = lambda x: loss(x, y, **EXACT)  # noqa: E731
        for transform in transforms:
            function = transform(function)
        refuses(lambda f=function: f(x.detach()), RuntimeError, "third derivative|forward mode over")
    (slope,) = torch.autograd.grad(loss(x, y, **EXACT), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
    refuses(lambda: second.sum().backward(), RuntimeError, "no third derivative.*detach")
    blur = torch.tensor(0.5, requires_grad=True)
    refuses(lambda: loss(x, y, blur=blur), TypeError, "`blur` requires grad.*no derivative in it")
    assert loss(x, y, blur=blur.detach()).item() == loss(x, y, blur=0.5).item()


def test_what_autograd_cannot_follow_is_refused(loss: Any) -> None:
    x = torch.ones(3, 2)
    for bad, kind in (([[0.0, 1.0]], "list"), (np.ones((2, 2)), "ndarray"), ([x[:2], x], "list")):
        refuses(lambda: loss(bad, x, blur=1), TypeError, rf"`x` must be a tensor, got {kind}; pass `torch\.")  # noqa: B023
    refuses(lambda: loss(x, x, [0.5] * 3, blur=1), TypeError, "`a` must be a tensor, got list")
    refuses(lambda: loss(x, None, blur=1), TypeError, "`y` must be a tensor, got NoneType")


def test_errors_and_warnings_are_those_of_epsot(loss: Any) -> None:
    x = draw(3, 2)
    refuses(lambda: loss(x, x), TypeError, "blur")
    refuses(lambda: loss(x, x, blur=-1), ValueError, "`blur` must be positive")
    with pytest.warns(epsot.ConvergenceWarning, match="MAX_ITER"):
        loss(x, draw(5, 2), blur=0.01, tol=1e-9, max_iter=2).backward()


# SamplesLoss


@pytest.mark.filterwarnings("ignore")  # what a peer deprecates is not ours to mend
@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("reach", [None, 0.9])
@pytest.mark.parametrize("p", [1, 2])
def test_a_script_moves_by_one_import(p: int, reach: float | None, debias: bool) -> None:
    """Values, gradients and shapes, with the tolerances of tests/test_conventions.py."""
    theirs = pytest.importorskip("geomloss").SamplesLoss
    a, x, b, y = torch.softmax(draw(13), 0), draw(13, 2), torch.softmax(draw(9), 0), draw(9, 2, seed=1) + 0.3
    options = {"p": p, "blur": 0.7, "reach": reach, "scaling": 0.99, "debias": debias}
    found, expected = bridge.SamplesLoss("sinkhorn", tol=1e-9, **options), theirs("sinkhorn", **options)
    for measures in ((x, y), (a, x, b, y), (a[:, None], x, b[:, None], y)):
        values = [loss(*measures) for loss in (found, expected)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-3)
        if reach is None:  # else theirs are not the derivatives of their values, see docs/conventions.rst
            slopes = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in values]
            torch.testing.assert_close(*slopes, rtol=0, atol=1e-3)
    many = x.detach().repeat(2, 1, 1), y.detach().repeat(2, 1, 1)
    assert found(*many).shape == expected(*many).shape == (2,)
    options["potentials"] = True
    for weights in (1, 2):  # potentials have the shape of the weights, theirs one more axis in front of (n,)
        column = [z.detach() if weights == 1 else z.detach()[:, None] for z in (a, b)]
        ours, others = (loss(column[0], x, column[1], y) for loss in (bridge.SamplesLoss(**options), theirs(**options)))
        for own, other, w in zip(ours, others, column, strict=True):
            assert own.shape == w.shape
            if reach is not None:  # balanced, theirs carry an arbitrary constant
                torch.testing.assert_close(own.reshape(-1), other.reshape(-1), rtol=0, atol=1e-2)


def test_potentials_have_no_derivative_in_silence() -> None:
    x, y = draw(6, 2), draw(5, 2).detach()
    f, g = bridge.SamplesLoss(blur=0.3, potentials=True)(x, y)
    result = epsot.sinkhorn_divergence(x.detach(), y, blur=0.3)
    assert torch.equal(f.detach(), result.f)
    assert torch.equal(g.detach(), result.g)
    refuses(f.sum().backward, RuntimeError, "potentials have no derivative")
    loss = bridge.SamplesLoss(potentials=True)
    refuses(lambda: torch.func.jvp(lambda x: loss(x, y)[0], (x,), (x,)), RuntimeError, "potent")


def test_arguments_of_geomloss_without_a_meaning_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epsot.torch.told", set())
    bridge.SamplesLoss(truncate=5, cluster_scale=None, verbose=False, backend="auto")  # as by default: nothing to say
    with pytest.warns(UserWarning, match="no meaning") as told:
        for _ in range(2):
            bridge.SamplesLoss(truncate=3, cluster_scale=0.1, verbose=True, backend="tensorized")
    assert sorted(re.findall(r"`(\w+)`", " ".join(str(w.message) for w in told))) == [
        "backend", "cluster_scale", "truncate", "verbose",
    ]  # fmt: skip
    assert {warning.filename for warning in told} == {__file__}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"loss": "gaussian"}, ValueError, '`loss` must be "sinkhorn", got .gaussian.'),
        ({"loss": "energy"}, ValueError, "energy"),
        ({"loss": "laplacian"}, ValueError, "laplacian"),
        ({"loss": "hausdorff"}, ValueError, "hausdorff"),
        ({"cost": "SqDist(X,Y)"}, ValueError, "`cost` must be None.*epsot.divergence"),
        ({"kernel": abs}, ValueError, "`kernel` must be None"),
        ({"debias": 5}, TypeError, "`debias` must be True or False, got 5.*by name"),
        ({"blurr": 5}, TypeError, "unexpected keyword argument 'blurr'"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], error: Any, match: str) -> None:
    refuses(lambda: bridge.SamplesLoss(**arguments), error, match)


def test_orders_of_arguments() -> None:
    loss, x, y = bridge.SamplesLoss(blur=0.3), draw(4, 2).detach(), draw(5, 2).detach()
    a, b = torch.full((4,), 0.25, dtype=torch.float64), torch.full((5,), 0.2, dtype=torch.float64)
    torch.testing.assert_close(loss(None, a, x, None, b, y), loss(x, y), rtol=1e-12, atol=1e-12)
    labels = torch.zeros(4, dtype=torch.int64)
    refuses(lambda: loss(labels, a, x, None, b, y), ValueError, "`labels_x` and `labels_y` must be None")
    refuses(lambda: loss(x, y, a), TypeError, r"\(a, x, b, y\).*got 3 arguments")


def test_the_module_is_a_module() -> None:
    loss = bridge.SamplesLoss("sinkhorn", 1, 0.2, reach=0.7, tol=1e-6)
    assert repr(loss).startswith("SamplesLoss(blur=0.2, p=1, reach=0.7")
    assert not list(loss.parameters())
    x, y = draw(4, 2).detach(), draw(5, 2).detach()
    expected = epsot.sinkhorn_divergence(x, y, blur=0.2, p=1, reach=0.7, tol=1e-6).value
    for other in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.nn.Sequential(loss)[0]):
        assert other(x, y) == expected
    loss.blur = 0.5
    assert loss(x, y) == epsot.sinkhorn_divergence(x, y, blur=0.5, p=1, reach=0.7, tol=1e-6).value


# Pages and scripts

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_runs() -> None:
    """The code of the section on PyTorch, in order."""
    page = (DOCS / "frameworks.rst").read_text(encoding="utf-8")
    section = page.split("\nPyTorch\n-------\n")[1].split("\n-------")[0]
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", section)
    assert len(blocks) >= 3
    place: dict[str, Any] = {}
    for block in blocks:
        exec(re.sub("^    ", "", block, flags=re.MULTILINE), place)


def test_importing_without_pytorch_names_the_extra() -> None:
    code = "import sys; sys.modules['torch'] = None; import epsot; import epsot.torch"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: `epsot.torch` needs PyTorch, which `pip install epsot[torch]` brings" in run.stderr


# Images


GRID, WIDE = epsot.Grid((3, 4), spacing=0.25), epsot.Grid((2, 5), spacing=0.2)


def image(grid: epsot.Grid, *lead: int) -> Any:
    z = torch.rand(*lead, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    axes = tuple(range(-grid.dimension, 0))
    return (z / z.sum(axes, keepdim=True)).requires_grad_()


@pytest.mark.parametrize("entry", ENTRIES)
def test_weights_of_grids_have_derivatives(entry: str) -> None:
    """The first two, unbalanced, where all directions count; of a batch each with its own."""
    loss, a, b = getattr(bridge, entry), image(GRID), image(WIDE)

    def value(a: Any, b: Any) -> Any:
        return loss(GRID, WIDE, a, b, blur=0.3, reach=0.7, tol=1e-10)

    assert torch.autograd.gradcheck(value, (a, b), atol=1e-5)
    assert torch.autograd.gradgradcheck(value, (a, b), atol=1e-4)
    assert torch.autograd.grad(value(a, b), a)[0].shape == GRID.shape
    many = image(GRID, 2)
    values = value(many, b)
    assert values.shape == (2,)
    (slopes,) = torch.autograd.grad(values.sum(), many)
    for k in range(2):
        one = many[k].detach().requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(value(one, b), one)[0], slopes[k])


def test_a_cloud_and_a_grid() -> None:
    y = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6), requires_grad=True)
    a = image(GRID)
    loss = bridge.sinkhorn_divergence(GRID, y, a, blur=0.3, tol=1e-10)
    slopes = torch.autograd.grad(loss, (y, a))
    result = epsot.sinkhorn_divergence(GRID, y.detach(), a.detach(), blur=0.3, tol=1e-10)
    torch.testing.assert_close(slopes[0], result.grad_y)
    torch.testing.assert_close(slopes[1], result.grad_a)


def test_a_module_takes_grids() -> None:
    a, b = image(GRID), image(WIDE).detach()
    value = bridge.SamplesLoss(blur=0.3)(a, GRID, b, WIDE)
    result = epsot.sinkhorn_divergence(GRID, WIDE, a.detach(), b, blur=0.3)
    torch.testing.assert_close(torch.autograd.grad(value, a)[0], result.grad_a)
    f, g = bridge.SamplesLoss(blur=0.3, potentials=True)(a, GRID, b, WIDE)
    torch.testing.assert_close((f, g), (result.f, result.g))


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`a` must have the shape of its grid, \(3, 4\).*got \(12,\)"):
        bridge.sinkhorn(GRID, WIDE, torch.ones(12), blur=0.3)
    with pytest.raises(TypeError, match="`a` or `b` must be a tensor"):
        bridge.sinkhorn(GRID, WIDE, blur=0.3)
    with pytest.raises(TypeError, match="`b` must be a tensor, got ndarray"):
        bridge.sinkhorn(GRID, WIDE, None, np.ones((2, 5)), blur=0.3)
