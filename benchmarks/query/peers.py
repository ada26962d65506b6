"""The choices of ``query.py`` by other libraries, where they are installed: by their own entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

Choice = Callable[[], Any]
BLOCK = 2**14


def peers_of(figure: str, data: dict[str, Any], k: int) -> dict[str, Choice]:
    """Return what each library does for a figure, by its name; those that are not installed are left out."""
    makers = {"scikit-activeml": ("skactiveml", _skactiveml), "modAL": ("modAL", _modal), "baal": ("baal", _baal),
              "small-text": ("small_text", _small_text)}  # fmt: skip
    choices = {}
    for name, (package, make) in makers.items():
        if find_spec(package) is not None and (choice := make(figure, data, k)) is not None:
            choices[name] = _quietly(choice)
    return choices


def _quietly(choice: Choice) -> Choice:
    def quiet() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return choice()

    return quiet


def _probabilities(figure: str, data: dict[str, Any]) -> np.ndarray[Any, Any]:
    if figure == "entropy":
        return torch.softmax(data["logits"], dim=1).numpy()
    positive = torch.sigmoid(data["binary"])
    return torch.stack([1 - positive, positive], dim=1).numpy()


def _linear(data: dict[str, Any]) -> Callable[[Any], np.ndarray[Any, Any]]:
    """Return what a classifier of memory-mapped rows gives for them."""
    weight, bias = (part.detach().numpy() for part in data["learner"].parameters())

    def predict(rows: Any) -> np.ndarray[Any, Any]:
        positive = 1 / (1 + np.exp(-(np.asarray(rows) @ weight[0] + bias[0])))
        return np.stack([1 - positive, positive], axis=1)

    return predict


class _Given:
    """A classifier whose predictions are known; its inputs are row numbers, or rows of a memory-mapped array."""

    def __init__(self, predict: Callable[[Any], Any]) -> None:
        self._predict = predict

    def predict_proba(self, rows: Any, **options: Any) -> Any:
        """Return the probabilities of these rows."""
        del options
        return self._predict(rows)


def _modal(figure: str, data: dict[str, Any], k: int) -> Choice | None:
    from modAL.uncertainty import entropy_sampling

    if figure in ("entropy", "binary"):
        p = _probabilities(figure, data)
        return lambda: entropy_sampling(_Given(lambda _: p), np.arange(len(p)), n_instances=k)[0]
    if figure == "mapped":
        return lambda: entropy_sampling(_Given(_linear(data)), data["rows"](), n_instances=k)[0]
    return None


def _baal(figure: str, data: dict[str, Any], k: int) -> Choice | None:
    from baal.active.heuristics import BALD, BatchBALD, Entropy

    if figure in ("entropy", "binary"):
        p = _probabilities(figure, data)
        return lambda: Entropy()(p)[:k]
    if figure == "mapped":

        def chunks() -> Iterator[Any]:
            rows, predict = data["rows"](), _linear(data)
            yield from (predict(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))

        return lambda: Entropy()(chunks())[:k]
    if figure == "bald":
        posterior = data["posterior"].permute(1, 2, 0).contiguous().numpy()
        return lambda: BALD()(posterior)[:k]
    if figure == "batchbald":
        joint = data["joint"].permute(1, 2, 0).contiguous().numpy()
        return lambda: BatchBALD(num_samples=10, num_draw=2000 // 20)(joint)[:10]
    return None


def _small_text(figure: str, data: dict[str, Any], k: int) -> Choice | None:
    everything, none = np.arange(2 * 10**5), np.empty(0, dtype=np.int64)
    if figure == "kcenter":
        from small_text.query_strategies.coresets import greedy_coreset

        rows = torch.cat([data["features"], data["labeled"]]).numpy()
        labeled_rows = np.arange(len(data["features"]), len(rows))
        return lambda: greedy_coreset(rows, everything, labeled_rows, k, distance_metric="euclidean", batch_size=BLOCK)
    if figure == "badge":
        from small_text.integrations.pytorch.query_strategies.strategies import BADGE

        features, p = data["features"].numpy(), data["p"].numpy()
        choose = BADGE(10).sample
        return lambda: choose(None, None, everything[: len(p)], none, none, k, features, p.copy())
    if figure == "bald":
        from small_text.query_strategies.bayesian import BALD

        posterior = data["posterior"].permute(1, 0, 2).contiguous().numpy()
        given = _Given(lambda _: posterior)
        return lambda: BALD(20).query(given, everything, everything[: len(posterior)], none, none, n=k)
    return None


def _skactiveml(figure: str, data: dict[str, Any], k: int) -> Choice | None:
    from skactiveml import pool
    from skactiveml.base import SkactivemlClassifier

    class Given(SkactivemlClassifier):  # type: ignore[misc]
        def __init__(self, predict: Any) -> None:
            super().__init__(classes=range(10), missing_label=np.nan)
            self.predict = predict

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:  # noqa: N803
            del X, y, sample_weight
            return self

        def predict_proba(self, X: Any) -> Any:  # noqa: N803
            return self.predict(X)

    def unknown(n: int) -> np.ndarray[Any, Any]:
        return np.full(n, np.nan)

    if figure in ("entropy", "binary"):
        p = _probabilities(figure, data)
        numbers, given = np.arange(len(p))[:, None], Given(lambda _: p)
        query = pool.UncertaintySampling(method="entropy", random_state=0).query
        return lambda: query(numbers, unknown(len(p)), given, fit_clf=False, batch_size=k)
    if figure == "mapped":
        query = pool.UncertaintySampling(method="entropy", random_state=0).query
        given = Given(_linear(data))

        def choose() -> Any:
            rows = data["rows"]()
            return query(rows, unknown(len(rows)), given, fit_clf=False, batch_size=k)

        return choose
    if figure == "kcenter":
        rows = torch.cat([data["features"], data["labeled"]]).numpy()
        labels = np.concatenate([unknown(len(data["features"])), np.zeros(len(data["labeled"]))])
        return lambda: pool.CoreSet(random_state=0).query(rows, labels, batch_size=k)
    if figure == "badge":
        features, p = data["features"].numpy(), data["p"].numpy()
        badge = pool.Badge(random_state=0).query
        return lambda: badge(features, unknown(len(p)), Given(lambda _: p), fit_clf=False, batch_size=k)
    if figure == "bald":
        posterior = data["posterior"].numpy()
        return lambda: np.argsort(-pool.average_kl_divergence(posterior), kind="stable")[:k]
    if figure == "batchbald":
        joint = data["joint"].numpy()
        return lambda: pool.batch_bald(joint, 10, n_MC_samples=2000, random_state=0).argmax(axis=1)
    if figure == "typiclust":
        features = data["features"].numpy()
        return lambda: pool.TypiClust(random_state=0).query(features, unknown(len(features)), batch_size=k)
    return None
