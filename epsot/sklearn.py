"""scikit-learn: a transformer that moves samples onto a target."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "`epsot.sklearn` needs scikit-learn 1.6 or later, which `pip install epsot[sklearn]` brings"
    ) from error

import epsot

__all__ = ["SinkhornTransport"]

Array = Any
TENTH = 0.1  # of the diameter of the target


class SinkhornTransport(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Move samples onto a target by entropic optimal transport.

    `fit` finds the map from the samples to the target, `transform` applies it to these and other samples. The target is
    a parameter, and not `y`: in a Pipeline it stays where it is while samples pass.

    Parameters
    ----------
    target : (m, d) array, optional
        Points of the target, of equal weights. By default the samples themselves, with their weights, which a debiased
        map leaves where they are.
    blur : float, optional
        The scale below which details do not count, as in `epsot.sinkhorn_divergence`; by default a tenth of the
        diameter of the target.
    reach : float, optional
        How far mass may travel, as in `epsot.sinkhorn_divergence`; None is balanced.
    debias : bool
        Whether the map is that of the divergence (default), or the barycentric projection of the plan, which contracts
        the samples by about `blur`.
    tol, max_iter, workers
        As in `epsot.sinkhorn_divergence`.

    Attributes
    ----------
    result_ : DivergenceResult or SinkhornResult
        The solve behind the map.
    target_ : (m, d) array
        The target, in the library and dtype of the samples.
    blur_ : float
        The blur that was used.
    n_iter_ : int
        The iterations it took.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    Notes
    -----
    Sample weights are relative, as everywhere in scikit-learn: both measures have mass 1. The score is minus the
    divergence between the transformed samples and the target at a tenth of the diameter of the target, whatever `blur`
    is, so that a search over `blur` compares like with like.

    With ``sklearn.config_context(array_api_dispatch=True)`` samples of PyTorch, CuPy and others are worked on in their
    library and on their device.

    Examples
    --------
    >>> import numpy as np
    >>> from epsot.sklearn import SinkhornTransport
    >>> rng = np.random.default_rng(0)
    >>> X, target = rng.random((60, 2)), rng.random((50, 2)) + [3.0, 0.0]
    >>> mover = SinkhornTransport(target, blur=0.2).fit(X)
    >>> abs(mover.transform(X).mean(axis=0) - target.mean(axis=0)).round(2)
    array([0., 0.])
    >>> bool(mover.score(X) > -0.01)
    True
    """

    result_: epsot.DivergenceResult | epsot.SinkhornResult

    def __init__(
        self,
        target: Any = None,
        *,
        blur: float | None = None,
        reach: float | None = None,
        debias: bool = True,
        tol: float | None = 1e-3,
        max_iter: int = 1000,
        workers: int | None = None,
    ) -> None:
        self.target = target
        self.blur = blur
        self.reach = reach
        self.debias = debias
        self.tol = tol
        self.max_iter = max_iter
        self.workers = workers

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SinkhornTransport:
        """Find the map from the samples to the target.

        Parameters
        ----------
        X : (n, d) array
            Samples.
        y : None
            Ignored.
        sample_weight : (n,) array, optional
            Non-negative weights, of any sum that is positive.

        Returns
        -------
        SinkhornTransport
            Itself.
        """
        X = floating(validate_data(self, X))
        weights = relative(sample_weight, X)
        self.target_ = X if self.target is None else beside(X, check_array(self.target, input_name="target"))
        self.blur_ = self._tenth() if self.blur is None else self.blur
        solve = epsot.sinkhorn_divergence if self.debias else epsot.sinkhorn
        self.result_ = solve(
            X, self.target_, weights, weights if self.target is None else None, blur=self.blur_, reach=self.reach,
            tol=self.tol, max_iter=self.max_iter, workers=self.workers,
        )  # fmt: skip
        self.n_iter_ = self.result_.nit
        return self

    def transform(self, X: Any) -> Array:
        """Move samples by the map that was found.

        Parameters
        ----------
        X : (r, d) array
            Samples, those of `fit` or others.

        Returns
        -------
        (r, d) array
            Where they go.
        """
        check_is_fitted(self)
        X = floating(validate_data(self, X, reset=False))
        place, own = ((array_namespace(z), device(z)) for z in (X, self.target_))
        if place != own:
            raise ValueError(
                "Inputs passed to SinkhornTransport.transform() must use the same namespace and the same device as "
                f"those passed to fit(), got {place[0].__name__} on {place[1]}, and {own[0].__name__} on {own[1]} there"
            )
        return self.result_.transport(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the divergence between transformed samples and target, at a tenth of the diameter of the target.

        Parameters
        ----------
        X : (r, d) array
            Samples.
        y : None
            Ignored.
        sample_weight : (r,) array, optional
            Non-negative weights.

        Returns
        -------
        float
            At most zero, where the samples have become the target.
        """
        moved = self.transform(X)
        weights = relative(sample_weight, moved)
        found = epsot.sinkhorn_divergence(moved, self.target_, weights, blur=self._tenth(), workers=self.workers)
        return -float(found.value)

    def _tenth(self) -> float:
        """A tenth of the diameter of the target, or 1 where it is a single point."""
        return TENTH * epsot.extent(self.target_, self.target_) or 1.0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        return tags


def floating(X: Array) -> Array:
    """float32 and float64 as they are, all else as float64."""
    xp = array_namespace(X)
    return X if X.dtype in (xp.float32, xp.float64) else xp.astype(X, xp.float64)


def beside(X: Array, target: Array) -> Array:
    """The target in the dtype of the samples; one of NumPy in their library and on their device."""
    xp = array_namespace(X)
    return xp.asarray(target, dtype=X.dtype, device=device(X)) if isinstance(target, np.ndarray) else target


def relative(sample_weight: Any, X: Array) -> Array | None:
    """Weights of sum 1, or None for equal ones."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, X)
    total = array_namespace(weights).sum(weights)
    if not float(total) > 0:
        raise ValueError(f"`sample_weight` must have a positive sum, got {float(total)}")
    return weights / total
