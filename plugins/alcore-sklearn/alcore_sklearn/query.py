"""A query strategy with its own estimator, which need not be the model that is trained."""

from __future__ import annotations

from typing import Any, Literal

import torch
from sklearn.base import is_classifier

from alcore.errors import UsageError, check_choice
from alcore.outputs import entropy, least_confidence, margin
from alcore.pools import has_batch, to_device
from alcore.protocols import QueryQueue
from alcore.randomness import preserve_rng_state
from alcore.strategies import PointwiseQuery
from alcore_sklearn.estimators import build, full_name, output_of
from alcore_sklearn.fitted import Fitted, fit
from alcore_sklearn.labeled import AnyOrder, JoinedBatches, as_rows, labeled_arrays, order_of

_OF_PROBABILITIES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
MEASURES = (*_OF_PROBABILITIES, "decision")


def uncertainty(outputs: torch.Tensor, measure: str) -> torch.Tensor:
    """Return the uncertainty of each prediction: float64, shape (B,), higher for a less certain one.

    Parameters
    ----------
    outputs
        For ``"decision"`` decision values, (B,) for two classes or (B, C); else probabilities (B, C).
    measure
        ``"least_confidence"``, ``"margin"`` or ``"entropy"``: a function of `alcore.inference`. ``"decision"``: minus
        the distance from the decision boundary, |f| for two classes, and the difference between the two largest values
        for more.

    Notes
    -----
    For two classes the first three measures give the same ranking, and the smaller probability is returned: many
    samples with nearly even predictions would have the same entropy. The probabilities of a sample are sorted first, so
    that samples with the same ones tie, whichever classes they are of; vote shares of a forest often do.
    """
    outputs = outputs.double()
    if measure == "decision":
        if outputs.dim() == 1:
            return -outputs.abs()
        best = outputs.topk(2, dim=1).values
        return best[:, 1] - best[:, 0]
    of_probabilities = least_confidence if outputs.shape[1] == 2 else _OF_PROBABILITIES[measure]
    return of_probabilities(outputs.sort(dim=1).values, "probabilities")


class SklearnUncertaintyQuery(PointwiseQuery):
    """Ask for the samples about which a separate classifier, fitted in each step, is least certain.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    estimator
        The estimator: ``sklearn.linear_model.LogisticRegression``, or ``LogisticRegression`` for short.
    parameters
        Its arguments, such as ``{C=0.1}``. A table with a key ``use`` is an estimator itself.
    measure
        ``"least_confidence"``, ``"margin"`` or ``"entropy"`` of ``predict_proba``, or ``"decision"``: the distance
        from the boundary by ``decision_function``. See `uncertainty` for the formulas.
    order
        ``"labeled"``: samples are fitted in the order in which they were labeled; ``"pool"``: in that of their ids.

    Notes
    -----
    Uncertainty sampling (Lewis and Gale, A sequential algorithm for training text classifiers, SIGIR 1994) with
    a model other than the one that is trained, called "non-compatible" by Zhan et al. (A comparative survey of
    deep active learning, IJCAI 2021). Time is that of one fit and N predictions; memory O(chunk + max_samples) beside
    the labeled samples and the estimator.

    It helps where the trained model is slow to predict, or gives no usable probabilities. It is known to hurt where the
    two models disagree, since labels are spent at the boundary of the wrong one (Lu, Li and Lin, Re-benchmarking
    pool-based active learning for binary classification, 2023). The learner is not used. Without labels, and with
    labels of one class, all samples have the same score, and the lowest ids are asked for.
    """

    def __init__(
        self,
        max_samples: int = 10,
        estimator: str = "sklearn.linear_model.LogisticRegression",
        parameters: dict[str, Any] | None = None,
        measure: Literal["least_confidence", "margin", "entropy", "decision"] = "entropy",
        order: AnyOrder = "labeled",
    ) -> None:
        super().__init__(max_samples)
        self.estimator, self.parameters = full_name(estimator), dict(parameters or {})
        self._template = build(self.estimator, self.parameters)
        if not is_classifier(self._template):
            raise UsageError(f"{self.estimator} is a regressor, and the measures are for classes; use a classifier.")
        check_choice("SklearnUncertaintyQuery", "measure", measure, MEASURES)
        self.measure, self.order = measure, order_of(order)
        wanted: Literal["probabilities", "decision"] = "decision" if measure == "decision" else "probabilities"
        self._output = output_of(self._template, wanted, self.estimator)
        self._fitted: Fitted | None = None

    def check(self) -> None:
        """Raise `UsageError` for regression, and for a pool or inputs that can't be used."""
        info = self.driver.info
        if info is not None and info.task != "classification":
            raise UsageError("it ranks by classes, and the task of this data is regression; use another strategy.")
        ids = next(self.driver.candidates(2), None)
        if ids is not None:
            as_rows(self.driver.choice_pool.inputs(ids))

    def infer(self, inputs: Any) -> torch.Tensor:
        """Return the outputs of the estimator."""
        assert self._fitted is not None
        return torch.from_numpy(self._fitted(as_rows(to_device(inputs, torch.device("cpu"), self.driver.dtype))))

    def score(self, outputs: Any) -> torch.Tensor:
        """Return the uncertainty of the estimator about each sample: float64, shape (B,)."""
        return uncertainty(outputs, self.measure)

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Fit the estimator to the labeled samples, and ask for those about which it is least certain."""
        driver = self.driver
        with preserve_rng_state():  # a pool may augment what it returns
            arrays = labeled_arrays(self._labeled(), self.order, driver.dtype)
        classes = driver.info.classes if driver.info is not None else 0
        seed = int(torch.randint(2**62, (), generator=self.generator("fit")))
        self._fitted = fit(self._template, self._output, classes, arrays, seed)
        try:
            super().sample(query_queue)
        finally:
            self._fitted = None

    def _labeled(self) -> Any:
        """Return a pool of the labeled samples; one without ``batch`` is read as training reads it."""
        pool = self.driver.train_datapool
        if pool is None or not len(pool):
            return ()
        plain = self.order == "labeled" and not has_batch(pool)
        return JoinedBatches(self.driver.ordered_batches(pool)) if plain else pool
