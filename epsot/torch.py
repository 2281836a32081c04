"""PyTorch: transport losses that autograd differentiates, once and twice, and a module with GeomLoss's arguments.

Nothing is taped. The first derivatives are the gradients of the result, the second its Hessian products, and both are
computed when autograd asks for them. There is no third: what would need one raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("`epsot.torch` needs PyTorch, which `pip install epsot[torch]` brings") from error

import epsot
from epsot.autograd import Potentials, Tensor, Transport, Value
from epsot.bridges import MEASURES, OnGrids
from epsot.status import warn

__all__ = ["SamplesLoss", "sinkhorn", "sinkhorn_divergence"]

IGNORED = {"truncate": 5, "cluster_scale": None, "verbose": False, "backend": "auto"}  # arguments of GeomLoss
told: set[str] = set()  # those of them that a warning has named


def sinkhorn(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Any) -> Tensor:
    """`epsot.sinkhorn` for autograd: the value, with a derivative in the points and the weights.

    Parameters
    ----------
    x, y : (..., n, d) and (..., m, d) tensors, or Grid
        Points; leading axes of all arguments broadcast.
    a, b : (..., n) and (..., m) tensors, optional
        Non-negative weights; by default uniform. Over a Grid they have its shape after the axes of the batch.
    **options
        Those of `epsot.sinkhorn`, `blur` among them. They have no derivatives: a tensor among them must not require
        grad.

    Returns
    -------
    tensor of the shape of the batch
        ``epsot.sinkhorn(x, y, a, b, **options).value``.

    Raises
    ------
    TypeError
        For measures that are no tensors, and options that require grad.
    ValueError
        As `epsot.sinkhorn`.
    RuntimeError
        Where a third derivative would be needed.

    See Also
    --------
    sinkhorn_divergence : The debiased loss.

    Notes
    -----
    The gradient is that of the result, up to the tolerance of the solve, and the second derivative its
    `~epsot.SinkhornResult.hessian`. In the weights of a balanced problem both are known up to a constant, and hold for
    weights whose sum does not change: behind a softmax, for example.

    Examples
    --------
    >>> import torch
    >>> import epsot.torch
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    >>> epsot.torch.sinkhorn(x, x.detach() + 1, blur=0.1).backward()
    >>> x.grad.round(decimals=3)
    tensor([[-0.5000, -0.5000],
            [-0.5000, -0.5000]])

    Images are weights over a grid:

    >>> grid = epsot.Grid((4, 4))
    >>> image = torch.full((4, 4), 1 / 16, requires_grad=True)
    >>> epsot.torch.sinkhorn(grid, grid, image, image.detach().tril() * 1.6, blur=1.0).backward()
    >>> image.grad.shape
    torch.Size([4, 4])
    """
    return differentiable(Value, epsot.sinkhorn, (x, y, a, b), options)


def sinkhorn_divergence(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, **options: Any
) -> Tensor:
    """`epsot.sinkhorn_divergence` for autograd: the value, with a derivative in the points and the weights.

    Parameters
    ----------
    x, y, a, b, **options
        As in `sinkhorn`; the options are those of `epsot.sinkhorn_divergence`.

    Returns
    -------
    tensor of the shape of the batch
        ``epsot.sinkhorn_divergence(x, y, a, b, **options).value``.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As in `sinkhorn`.

    See Also
    --------
    SamplesLoss : The same as a module, with GeomLoss's arguments.

    Examples
    --------
    A minibatch of three problems, one of which is already solved:

    >>> import torch
    >>> import epsot.torch
    >>> y = torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(0))
    >>> x = (y + torch.tensor([0.0, 1.0, 2.0])[:, None, None]).requires_grad_()
    >>> loss = epsot.torch.sinkhorn_divergence(x, y, blur=0.1)
    >>> loss.detach().round(decimals=2)
    tensor([0., 1., 4.])
    >>> loss.sum().backward()
    >>> x.grad.sum(dim=1).round(decimals=2)
    tensor([[0., 0.],
            [1., 1.],
            [2., 2.]])
    """
    return differentiable(Value, epsot.sinkhorn_divergence, (x, y, a, b), options)


def as_differentiable(name: str, measure: Any) -> None:
    """Raise unless autograd can follow it."""
    if isinstance(measure, torch.Tensor) or (name in "ab" and measure is None):
        return
    cure = "torch.stack" if isinstance(measure, list | tuple) else "torch.as_tensor"
    raise TypeError(f"`{name}` must be a tensor, got {type(measure).__name__}; pass `{cure}({name})`")


def check_constant(name: str, option: Any) -> None:
    """Raise where a derivative in an option would be zero in silence."""
    for part in option if isinstance(option, list | tuple) else (option,):
        if isinstance(part, torch.Tensor) and part.requires_grad:
            raise TypeError(f"`{name}` requires grad, but the loss has no derivative in it; pass `{name}.detach()`")


@torch.compiler.disable  # the kernels are epsot's own: a compiled function calls it between two graphs
def differentiable(function: Any, solve: Callable[..., Any], measures: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The value of a solve, or its potentials, as a function of the measures."""
    grids = tuple(z if isinstance(z, epsot.Grid) else None for z in measures[:2])
    if any(grids):
        solve, measures = OnGrids(solve, (grids[0], grids[1])), flattened(measures)
    for name, measure in zip(MEASURES, measures, strict=True):
        if not (name in "xy" and grids["xy".index(name)]):
            as_differentiable(name, measure)
    for name, option in options.items():
        check_constant(name, option)
    return function.apply(Transport(solve, options), *measures)


def flattened(measures: tuple[Any, ...]) -> tuple[Any, ...]:
    """Measures over grids, which have no tensor of points, with weights that have one axis for the nodes."""
    found = list(measures)
    for side, name in ((0, "a"), (1, "b")):
        grid, weights = measures[side], measures[side + 2]
        if not isinstance(grid, epsot.Grid):
            continue
        found[side] = None
        if weights is None:
            continue
        as_differentiable(name, weights)
        lead = tuple(weights.shape)[: max(0, weights.ndim - grid.dimension)]
        if tuple(weights.shape) != (*lead, *grid.shape):
            raise ValueError(
                f"`{name}` must have the shape of its grid, {grid.shape}, after the axes of the batch, got "
                f"{tuple(weights.shape)}"
            )
        found[side + 2] = weights.reshape(*lead, grid.size)
    if all(z is None for z in found):
        raise TypeError("between two grids `a` or `b` must be a tensor: it says where to compute")
    return tuple(found)


class SamplesLoss(torch.nn.Module):
    """The Sinkhorn divergence between samples as a module, called as that of GeomLoss is.

    ``from epsot.torch import SamplesLoss`` in place of ``from geomloss import SamplesLoss`` moves a script.

    Parameters
    ----------
    loss : "sinkhorn"
        The others of GeomLoss, kernel norms and the Hausdorff divergence, are refused.
    p : {2, 1}
        The cost is ``|x - y|**p / p``.
    blur, reach, diameter, scaling
        As in `epsot.sinkhorn_divergence`.
    debias : bool
        Whether the loss is the divergence (default) or the transport cost alone.
    potentials : bool
        Whether a call returns the two dual potentials, which have no derivative, and not the value.
    tol : float or None
        The marginal error to reach. None: `scaling` alone decides, as in GeomLoss.
    max_iter, workers
        As in `epsot.sinkhorn_divergence`.
    cost, kernel
        Refused where they are not None: `epsot.divergence` takes other costs.
    truncate, cluster_scale, verbose, backend
        Arguments of GeomLoss without a meaning here, accepted with one warning for each.

    Raises
    ------
    ValueError, TypeError
        For arguments that are refused; on a call, as `sinkhorn`.

    Notes
    -----
    A module is called with ``(x, y)``, or ``(a, x, b, y)`` and weights, or GeomLoss's ``(None, a, x, None, b, y)``
    without labels: clouds (n, d) and weights (n,) or (n, 1), or with one more axis in front, for which there is one
    value each. How values correspond, :doc:`/conventions` says: debiased they are the same.

    The arguments are attributes, and may be changed between two calls.

    Examples
    --------
    >>> import torch
    >>> from epsot.torch import SamplesLoss
    >>> loss = SamplesLoss("sinkhorn", p=2, blur=0.1)
    >>> x = torch.zeros(5, 2, requires_grad=True)
    >>> value = loss(x, torch.ones(4, 2))
    >>> value.backward()
    >>> value.item(), x.grad[0].tolist()
    (1.0, [-0.2..., -0.2...])
    """

    def __init__(
        self,
        loss: str = "sinkhorn",
        p: float = 2,
        blur: float = 0.05,
        reach: Any = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        debias: bool = True,
        potentials: bool = False,
        *,
        tol: float | None = 1e-3,
        max_iter: int = 1000,
        workers: int | None = None,
        cost: None = None,
        kernel: None = None,
        **ignored: Any,
    ) -> None:
        super().__init__()
        if loss != "sinkhorn":
            raise ValueError(f'`loss` must be "sinkhorn", got {loss!r}: epsot computes no kernel norms')
        for name, given in (("cost", cost), ("kernel", kernel)):
            if given is not None:
                raise ValueError(f"`{name}` must be None: `p` chooses the cost here, and `epsot.divergence` takes any")
        for name, flag in (("debias", debias), ("potentials", potentials)):
            if not isinstance(flag, bool):
                raise TypeError(f"`{name}` must be True or False, got {flag!r}; pass what follows `scaling` by name")
        say_what_is_ignored(ignored)
        self.loss, self.p, self.blur, self.reach, self.diameter, self.scaling = loss, p, blur, reach, diameter, scaling
        self.debias, self.potentials = debias, potentials
        self.tol, self.max_iter, self.workers = tol, max_iter, workers

    @property
    def options(self) -> dict[str, Any]:
        """Those of `epsot.sinkhorn_divergence`."""
        names = ("blur", "p", "reach", "diameter", "scaling", "tol", "max_iter", "workers")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in [*self.options.items(), ("debias", self.debias)])

    def forward(self, *measures: Any) -> Any:
        """The value of each pair of measures, or their potentials."""
        a, x, b, y = arranged(measures)
        solve = epsot.sinkhorn_divergence if self.debias else epsot.sinkhorn
        given = (x, y, flat(a, x), flat(b, y))
        if not self.potentials:
            return differentiable(Value, solve, given, self.options)
        f, g = differentiable(Potentials, solve, given, self.options)
        return (f if a is None else f.view_as(a)), (g if b is None else g.view_as(b))


def say_what_is_ignored(arguments: dict[str, Any]) -> None:
    """Once for each name."""
    for name, value in arguments.items():
        if name not in IGNORED:
            raise TypeError(f"SamplesLoss() got an unexpected keyword argument {name!r}")
        if value != IGNORED[name] and name not in told:
            told.add(name)
            warn(f"`{name}` has no meaning in epsot, and is ignored", UserWarning)


def arranged(measures: tuple[Any, ...]) -> tuple[Any, ...]:
    """GeomLoss's orders of arguments -> a, x, b, y."""
    match measures:
        case (x, y):
            return None, x, None, y
        case (a, x, b, y):
            return a, x, b, y
        case (labels_x, a, x, labels_y, b, y):
            if labels_x is not None or labels_y is not None:
                raise ValueError("`labels_x` and `labels_y` must be None: epsot finds its clusters itself")
            return a, x, b, y
    raise TypeError(f"pass (x, y), (a, x, b, y) or (None, a, x, None, b, y), got {len(measures)} arguments")


def flat(weights: Any, points: Any) -> Any:
    """(..., n) weights, of which GeomLoss takes (..., n, 1), too."""
    if isinstance(points, epsot.Grid) or not isinstance(weights, torch.Tensor):
        return weights
    return weights.squeeze(-1) if weights.ndim == points.ndim and weights.shape[-1] == 1 else weights
