"""Query strategies that compare candidates with labeled samples."""

from __future__ import annotations

import torch

from alcore.errors import UsageError
from alcore.inference import Features, TopK
from alcore.outputs import kind_of
from alcore.strategies import SetQuery
from alcore_regression.emcm import bootstrap_committee, expected_model_change
from alcore_regression.greedy import gsx, gsy, igs
from alcore_regression.outputs import (
    check_finite,
    check_probe,
    check_quantities,
    check_regression,
    columns,
    predictions,
)

Chosen = tuple[torch.Tensor, torch.Tensor]


class GSxQuery(SetQuery):
    """Ask for the samples whose inputs are farthest from those of labeled samples: greedy sampling GSx.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Where distances are measured: ``"inputs"`` (the inputs, flattened), ``""`` (the penultimate activations), or
        the dotted name of a submodule of the learner.

    Notes
    -----
    Each pick maximizes ``min_m ||x_n - x_m||`` over the candidates n, with m over labeled and pending samples and
    earlier picks (Yu and Kim, Passive sampling for regression, ICDM 2010; GSx in Wu, Lin and Huang, Active learning for
    regression using greedy sampling, Information Sciences 474, 2019). Without labeled samples the first pick is the
    candidate nearest to the mean of all candidates. The learner is not used if `layer` is ``"inputs"``.

    Time O(N (M + k) D) for N candidates, M labeled samples and k picks; memory O(N) beside the features. It helps at
    the start, since few labels then cover the space of the inputs. It is known to hurt where inputs have outliers or
    long tails, for which it asks first, irrelevant features, or different scales: standardize them.
    """

    needs_outputs = False

    def __init__(self, max_samples: int = 10, candidates: int | float | None = None, layer: str = "inputs") -> None:
        super().__init__(max_samples, candidates, layer)

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Chosen:
        """Return positions, int64 (n,), and least distances, float64 (n,)."""
        check_finite(labeled.features, labeled.ids, "the features")
        features = labeled.features
        if pending is not None and len(pending.ids):
            check_finite(pending.features, pending.ids, "the features")
            features = torch.cat([features, pending.features]) if len(features) else pending.features
        return gsx(candidates.features, features, n, safe_point=self.driver.safe_point)


class _OutputQuery(GSxQuery):
    """A strategy that compares predictions with targets; without labels it chooses as `GSxQuery`."""

    needs_outputs = True

    def check(self) -> None:
        """Raise `UsageError` for classification, and for outputs that are not those of a regression."""
        info = self.driver.info
        check_regression(None if info is None else info.task)
        outputs = check_probe(self.driver)
        if outputs is not None:
            check_quantities(self.driver, outputs)
            super().check()

    def choose(self, candidates: Features, labeled: Features, n: int, pending: Features | None = None) -> Chosen:
        """Return positions, int64 (n,), and scores, float64 (n,)."""
        if not len(labeled.ids):
            return super().choose(candidates, labeled, n, pending)
        assert labeled.targets is not None
        kind = kind_of(self.driver.learner, "regression")
        predicted, targets = predictions(candidates.outputs, kind), columns(labeled.targets)
        if predicted.shape[1] != targets.shape[1]:
            raise UsageError(
                f"{type(self).__name__}: the learner predicts {predicted.shape[1]} quantities a sample, and the "
                f"targets have {targets.shape[1]}; both must be the same."
            )
        check_finite(predicted, candidates.ids, "the prediction")
        check_finite(labeled.features, labeled.ids, "the features")
        check_finite(targets, labeled.ids, "the target")
        features = labeled.features
        if self._counts_pending and pending is not None and len(pending.ids):
            expected = predictions(pending.outputs, kind)
            check_finite(expected, pending.ids, "the prediction")
            check_finite(pending.features, pending.ids, "the features")
            features, targets = torch.cat([features, pending.features]), torch.cat([targets, expected])
        return self._pick(candidates.features, predicted, features, targets, n)

    _counts_pending = True
    """Whether a pending sample counts as labeled, with its prediction as its target."""

    def _pick(
        self, x: torch.Tensor, predicted: torch.Tensor, labeled: torch.Tensor, targets: torch.Tensor, n: int
    ) -> Chosen:
        raise NotImplementedError


class GSyQuery(_OutputQuery):
    """Ask for the samples whose predictions are farthest from all known targets: greedy sampling GSy.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Where distances are measured while there are no labels: ``"inputs"`` (the inputs, flattened), ``""`` (the
        penultimate activations), or the dotted name of a submodule of the learner.

    Notes
    -----
    Each pick maximizes ``min_m ||f(x_n) - y_m||`` over the candidates n (Wu, Lin and Huang, Active learning for
    regression using greedy sampling, Information Sciences 474, 2019). A pick joins the labeled samples with its
    prediction as its target, and so does a pending sample. Several quantities count by their Euclidean distance, so
    they should be of one scale. Without labeled samples it chooses as `GSxQuery`.

    Time O(N (M + k) T) for T quantities, memory O(N). It helps where the whole range of the target matters. It is
    known to hurt where predictions are still poor, and where distant samples have equal targets.
    """

    def _pick(
        self, x: torch.Tensor, predicted: torch.Tensor, labeled: torch.Tensor, targets: torch.Tensor, n: int
    ) -> Chosen:
        del x, labeled
        return gsy(predicted, targets, n, safe_point=self.driver.safe_point)


class IGSQuery(_OutputQuery):
    """Ask for the samples that are far from labeled samples in inputs and output: improved greedy sampling, iGS.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Where distances are measured: ``"inputs"`` (the inputs, flattened), ``""`` (the penultimate activations), or
        the dotted name of a submodule of the learner.

    Notes
    -----
    Each pick maximizes ``min_m ||x_n - x_m|| ||f(x_n) - y_m||`` over the candidates n (Wu, Lin and Huang, Active
    learning for regression using greedy sampling, Information Sciences 474, 2019). A pick joins the labeled samples
    with its prediction as its target, and so does a pending sample. The choice does not depend on the scales of inputs
    and targets, but on that of one input, or of one of several targets, relative to the others. Without labeled samples
    it chooses as `GSxQuery`.

    Time O(N (M + k) (D + T)), memory O(N) beside the features. It helps where the target varies more in some places
    than in others. It is known to hurt where inputs have outliers or long tails, as all greedy sampling does.
    """

    def _pick(
        self, x: torch.Tensor, predicted: torch.Tensor, labeled: torch.Tensor, targets: torch.Tensor, n: int
    ) -> Chosen:
        return igs(x, predicted, labeled, targets, n, safe_point=self.driver.safe_point)


class EMCMQuery(_OutputQuery):
    """Ask for the samples whose labels would change the model most: expected model change maximization.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    layer
        Features of a sample for the linear models: ``""`` (the penultimate activations), ``"inputs"``, or the dotted
        name of a submodule of the learner.
    members
        Number of linear models in the committee.
    ridge
        Strength of the penalty on their weights, in units of the mean variance of the features.

    Notes
    -----
    The score is ``1/K sum_k ||f(x) - f_k(x)|| ||x||`` with the features x, a constant 1 among them, and K linear models
    f_k fitted to bootstraps of the labeled samples: the expected length of the gradient of the squared error with
    respect to a linear last layer (Cai, Zhang and Zhou, Maximizing expected model change for active learning in
    regression, ICDM 2013). The k best samples are chosen at once, as if pending ones didn't exist; the paper asks for
    one at a time. Without labeled samples it chooses as `GSxQuery`.

    Time O(N K D + K min(M, D)^2 max(M, D)), memory O(N) beside the features. It helps where the learner is close to
    linear in the features. It is known to hurt in large batches, where it asks for near-duplicates, and with outliers,
    whose features are long.
    """

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        layer: str = "",
        members: int = 4,
        ridge: float = 1e-3,
    ) -> None:
        super().__init__(max_samples, candidates, layer)
        if members < 1:
            raise UsageError(f"EMCMQuery: members is {members}; a committee has at least 1.")
        if not 0 < ridge < float("inf"):
            raise UsageError(f"EMCMQuery: ridge is {ridge}; it must be above 0, for instance 0.001.")
        self.members, self.ridge = members, ridge

    _counts_pending = False  # it would be learned from as if its prediction were true

    def _pick(
        self, x: torch.Tensor, predicted: torch.Tensor, labeled: torch.Tensor, targets: torch.Tensor, n: int
    ) -> Chosen:
        committee = bootstrap_committee(labeled, targets, self.members, self.ridge, self.generator("bootstrap"))
        best = TopK(n)
        best.add(torch.arange(len(x)), expected_model_change(x, predicted, committee))
        return best.result()
