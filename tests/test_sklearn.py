"""`epsot.sklearn`: an estimator that passes scikit-learn's own checks, and transports."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import epsot

pytest.importorskip("sklearn")
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from epsot.sklearn import SinkhornTransport

rng = np.random.default_rng(0)
X, TARGET = rng.random((40, 2)), rng.random((30, 2)) * [1.0, 0.5] + [2.0, 0.0]


@pytest.mark.filterwarnings("ignore")  # those of the checks themselves
@parametrize_with_checks([SinkhornTransport()])
def test_scikit_learn_s_own_checks(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # else those of the array API skip
    check(estimator)


@pytest.mark.every
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([SinkhornTransport(debias=False, blur=0.5, reach=2.0)])
def test_scikit_learn_s_own_checks_with_other_options(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("debias", [True, False])
def test_it_transports(debias: bool) -> None:
    solve = epsot.sinkhorn_divergence if debias else epsot.sinkhorn
    options: dict[str, Any] = {"blur": 0.2, "tol": 1e-6}
    found = SinkhornTransport(TARGET, debias=debias, **options).fit(X)
    expected = solve(X, TARGET, **options)
    np.testing.assert_array_equal(found.transform(X), expected.transport(X))
    np.testing.assert_allclose(found.transform(X), X + expected.displacement, atol=1e-10)
    np.testing.assert_array_equal(found.transform(X[:3] + 1), expected.transport(X[:3] + 1))
    np.testing.assert_array_equal(
        SinkhornTransport(TARGET, debias=debias, **options).fit_transform(X), found.transform(X)
    )
    assert found.n_iter_ == expected.nit
    assert (
        found.score(X)
        == -epsot.sinkhorn_divergence(found.transform(X), TARGET, blur=0.1 * epsot.extent(TARGET, TARGET)).value
    )


def test_weights_are_relative() -> None:
    weights = rng.integers(0, 4, 40)
    one, other = (
        SinkhornTransport(TARGET, blur=0.2, tol=1e-9).fit(X, sample_weight=w) for w in (weights, 5.0 * weights)
    )
    np.testing.assert_allclose(one.transform(X), other.transform(X), atol=1e-12)
    repeated = SinkhornTransport(TARGET, blur=0.2, tol=1e-9).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(one.transform(X), repeated.transform(X), atol=1e-6)
    np.testing.assert_allclose(one.score(X, sample_weight=weights), one.score(np.repeat(X, weights, axis=0)), rtol=1e-2)
    for bad in (np.zeros(40), -np.ones(40)):
        with pytest.raises(ValueError, match=r"positive sum|non-zero|egative"):
            SinkhornTransport(TARGET).fit(X, sample_weight=bad)


def test_without_a_target_samples_stay_where_they_are() -> None:
    weights = rng.random(40)
    found = SinkhornTransport(blur=0.1).fit(X, sample_weight=weights)
    np.testing.assert_allclose(found.transform(X), X, atol=1e-10)
    assert found.score(X) == pytest.approx(0, abs=1e-10)
    assert SinkhornTransport().fit(X[:1]).transform(X[:1]).shape == (1, 2)


def test_in_a_pipeline_and_a_search_over_blur() -> None:
    """The score is at one scale whatever `blur` is: a blur that smears details out does worse."""
    mover = SinkhornTransport(TARGET)
    search = GridSearchCV(mover, {"blur": [0.02, 0.1, 3.0]}, cv=KFold(3)).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert scores.argmin() == 2
    assert search.best_params_["blur"] < 3
    np.testing.assert_array_equal(search.transform(X), search.best_estimator_.transform(X))
    labels = (X[:, 0] > 0.5).astype(int)
    pipeline = make_pipeline(StandardScaler(), SinkhornTransport(TARGET, blur=0.1), KNeighborsClassifier(3))
    assert pipeline.fit(X, labels).score(X, labels) > 0.8


def test_copies_names_and_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["east", "north"])
    mover = SinkhornTransport(TARGET, blur=0.2).set_output(transform="pandas").fit(frame)
    moved = mover.transform(frame)
    assert list(moved.columns) == list(mover.get_feature_names_out()) == ["east", "north"]
    again = pickle.loads(pickle.dumps(mover))
    pandas.testing.assert_frame_equal(again.transform(frame), moved)
    assert clone(mover).get_params().keys() == mover.get_params().keys()
    with pytest.raises(ValueError, match="same dimension"):
        SinkhornTransport(TARGET).fit(np.ones((4, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_array_api_dispatch(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    x, weights = torch.tensor(X, dtype=getattr(torch, dtype)), torch.arange(1.0, 41.0)
    expected = SinkhornTransport(TARGET.astype(dtype), blur=0.2).fit(X.astype(dtype), sample_weight=weights.numpy())
    with config_context(array_api_dispatch=True):
        found = SinkhornTransport(TARGET, blur=0.2).fit(x, sample_weight=weights)
        moved = found.transform(x)
        assert isinstance(moved, torch.Tensor)
        assert moved.dtype == x.dtype
        np.testing.assert_allclose(moved, expected.transform(X.astype(dtype)), atol=1e-5)
        np.testing.assert_allclose(found.score(x), expected.score(X.astype(dtype)), rtol=1e-3)
        with pytest.raises(ValueError, match="must use the same namespace"):
            found.transform(X)


def test_importing_without_scikit_learn_names_the_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import epsot; import epsot.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "ImportError: `epsot.sklearn` needs scikit-learn 1.6 or later, which `pip install epsot[sklearn]`" in run.stderr
    )
