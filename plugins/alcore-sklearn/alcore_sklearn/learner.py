"""An estimator of scikit-learn as the learner of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import is_classifier

from alcore.errors import UsageError
from alcore.pools import DataInfo, tensors_of
from alcore_sklearn.estimators import build, full_name, output_of, plain
from alcore_sklearn.fitted import Fitted, fit, unfitted
from alcore_sklearn.labeled import AnyOrder, JoinedBatches, Order, as_rows, labeled_arrays, order_of

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


class SklearnLearner:
    """A classifier or regressor of scikit-learn, fitted anew to all labels in each step.

    Parameters
    ----------
    estimator
        The estimator: ``sklearn.svm.SVC``, or ``SVC`` for short.
    parameters
        Its arguments, such as ``{C=1.0, gamma="auto"}``. A table with a key ``use`` is an estimator itself.
    output
        What a classifier returns: ``"probabilities"`` (``predict_proba``), ``"decision"`` (``decision_function``), or
        ``"auto"``, which is probabilities if the estimator offers them.
    order
        ``"labeled"``: samples are fitted in the order in which they were labeled; ``"pool"``: in that of their ids, so
        that the last digits of a fit don't depend on how they were come by.
    info
        Task and number of classes of the data.

    Attributes
    ----------
    outputs : str
        ``"probabilities"``: shape (B, C). Or ``"logits"``: decision values of shape (B,) for two classes and (B, C)
        for more, or the values of a regression, (B,) or (B, T).

    Raises
    ------
    UsageError
        If scikit-learn has no such estimator or argument, or it doesn't fit the task.

    Notes
    -----
    Columns are in the order of the class codes 0 to C - 1. A class without labels has probability 0, or a
    decision value of -1e30. Without labels all classes have equal probability, and a regression is 0; with labels of
    one class only, that class has probability 1. Outputs keep the precision in which scikit-learn computes them.

    The state is the number of samples that the estimator was fitted on, the seed, and a digest of the samples.
    `rebuild` fits it again, which gives the same bytes; nothing is pickled.
    """

    def __init__(
        self,
        estimator: str = "sklearn.linear_model.LogisticRegression",
        parameters: dict[str, Any] | None = None,
        output: Literal["auto", "probabilities", "decision"] = "auto",
        order: AnyOrder = "labeled",
        info: DataInfo | None = None,
    ) -> None:
        self.estimator = full_name(estimator)
        self.parameters = dict(parameters or {})
        self.order: Order = order_of(order)
        self._template = build(self.estimator, self.parameters)
        classifies = bool(is_classifier(self._template))
        if info is not None and classifies != (info.task == "classification"):
            kind = "classifier" if classifies else "regressor"
            raise UsageError(f"{self.estimator} is a {kind}, and the task of this data is {info.task}; use another.")
        self._output = output_of(self._template, output, self.estimator) if classifies else "values"
        self._classes = max(info.classes, 2) if info is not None and info.classes and classifies else 0
        self.outputs = "probabilities" if self._output == "probabilities" else "logits"
        self._rows, self._seed, self._dtype, self._digest = 0, 0, "", ""
        self._fitted: Fitted | None = self._blank()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs for B samples; see `outputs`.

        Parameters
        ----------
        inputs
            Shape (B, ...); each sample is flattened.
        """
        if self._fitted is None:
            raise UsageError(
                f"SklearnLearner was given the state of a fit on {self._rows} samples; call rebuild(pool) with these "
                "before it is used."
            )
        rows = as_rows(inputs)
        values = self._fitted(rows) if len(rows) else self._fitted.of_nothing()
        return torch.from_numpy(np.ascontiguousarray(values)).to(tensors_of(inputs)[0].device)

    @property
    def fitted(self) -> Any:
        """The estimator of scikit-learn as last fitted; None if the labels were not enough to fit it."""
        return None if self._fitted is None else self._fitted.estimator

    def fit(self, pool: Any, seed: int = 0, dtype: torch.dtype | None = None) -> None:
        """Fit a new estimator to all labeled samples of a pool.

        Parameters
        ----------
        pool
            With ``batch(positions)``, or any sequence of (input, target).
        seed
            Seed of random states that are not among its parameters.
        dtype
            Floating-point type of inputs; torch's default if None.
        """
        dtype = dtype or torch.get_default_dtype()
        self._fit(pool, len(pool), seed, dtype)

    def fit_batches(self, batches: Iterable[Any], generator: torch.Generator) -> None:
        """Fit a new estimator to all labeled samples, as the training loop does.

        Parameters
        ----------
        batches
            A loader with its pool as `dataset`, as that of a run or torch's, or batches of (inputs, targets).
        generator
            Its seed is that of random states that are not among the parameters of the estimator.
        """
        pool = getattr(batches, "dataset", None)
        pool = JoinedBatches(batches) if pool is None else pool
        self.fit(pool, generator.initial_seed(), getattr(batches, "dtype", None))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that determines the fit, beside the labeled samples."""
        return {
            "estimator": self.estimator,
            "parameters": plain(self.parameters),
            "order": self.order,
            "rows": self._rows,
            "seed": self._seed,
            "dtype": self._dtype,
            "digest": self._digest,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; if the learner was fitted differently, `rebuild` must follow."""
        mine = self.state_dict()
        state = {**state, "order": order_of(state["order"])} if "order" in state else state
        if dict(state) == mine:
            return
        for name in ("estimator", "parameters", "order"):
            if state.get(name) != mine[name]:
                raise UsageError(
                    f"SklearnLearner was saved with {name} {state.get(name)!r}, and has {mine[name]!r} now; build it "
                    "as it was built then."
                )
        self._rows, self._seed = int(state["rows"]), int(state["seed"])
        self._dtype, self._digest = str(state["dtype"]), str(state["digest"])
        self._fitted = None if self._rows else self._blank()

    def rebuild(self, pool: Any) -> None:
        """Fit the estimator again as the state says, to the first labeled samples in training order.

        Parameters
        ----------
        pool
            The training pool, with at least as many labeled samples as at the fit.
        """
        if not self._rows:
            return
        if len(pool) < self._rows:
            raise UsageError(
                f"SklearnLearner was fitted on {self._rows} labeled samples, and the pool has {len(pool)}; give it "
                "the labels of the run first."
            )
        before = self._digest
        self._fit(pool, self._rows, self._seed, _DTYPES[self._dtype])
        if self._digest != before:
            warnings.warn(
                f"SklearnLearner: the {self._rows} labeled samples are not those that it was fitted on; a pool that "
                "augments what it returns can't give a fit again.",
                stacklevel=2,
            )

    def _fit(self, pool: Any, rows: int, seed: int, dtype: torch.dtype) -> None:
        arrays = labeled_arrays(pool, self.order, dtype, rows)
        self._fitted = fit(self._template, self._output, self._classes, arrays, seed)
        self._rows, self._seed = rows, seed
        self._dtype, self._digest = str(dtype).removeprefix("torch."), arrays.digest()

    def _blank(self) -> Fitted:
        """Return what is used without labels."""
        return unfitted(self._output, self._classes)
