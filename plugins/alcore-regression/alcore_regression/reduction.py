"""Query strategies by the variance of predictions: the largest one, and what labels would take off all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch

from alcore.errors import UsageError, check_choice
from alcore.inference import Features, TopK, chunks, has_covariance, per_cost, predictive, subset
from alcore.outputs import kind_of, mean_and_variance, reduce_map
from alcore.randomness import preserve_rng_state
from alcore.strategies import SetQuery
from alcore_regression.fidelity import WithHighestFidelity, with_highest_fidelity
from alcore_regression.joint import Conditioned, joint_posterior, no_joint
from alcore_regression.outputs import check_regression

_MOST_NUMBERS = 2**30  # covariances of candidates with reference samples
Chosen = tuple[torch.Tensor, torch.Tensor]
Reduce = Literal["mean", "max", "sum"]


class _ByVariance(SetQuery):
    """A strategy that is given the ids of samples alone, and asks the learner for their joint posterior."""

    needs_labeled = False
    needs_features = False
    needs_outputs = False

    def __init__(
        self, max_samples: int, candidates: int | float | None, reduce: Reduce, draws: int, noise: float
    ) -> None:
        super().__init__(max_samples, candidates)
        owner = type(self).__name__
        check_choice(owner, "reduce", reduce, ("mean", "max", "sum"))
        if draws < 2:
            raise UsageError(f"{owner}: draws is {draws}; a variance needs at least 2.")
        if not 0 < noise < float("inf"):
            raise UsageError(f"{owner}: noise is {noise}; it must be above 0, for instance 0.01.")
        self.reduce, self.draws, self.noise = reduce, draws, noise

    def check(self) -> None:
        """Raise `UsageError` for classification, and for a learner that doesn't predict what is needed."""
        info = self.driver.info
        check_regression(None if info is None else info.task)
        ids = next(self.driver.candidates(2), None)
        if ids is None:
            return
        self.driver.probe()
        with preserve_rng_state():
            self._check(ids)

    def _check(self, ids: torch.Tensor) -> None:
        raise NotImplementedError

    def gather(self, ids: torch.Tensor) -> Features:
        """Return the samples by their ids alone."""
        none = torch.empty(len(ids), 0)
        return Features(ids, none, none)

    def _seed(self) -> int:
        return self.generator("dropout").initial_seed()

    def _outputs(self, ids: torch.Tensor) -> torch.Tensor:
        return predictive(self.driver, self.draws, self._seed())(self.driver.choice_pool.inputs(ids))

    def _conditioned(self, ids: torch.Tensor, pool: Any = None) -> Conditioned:
        return Conditioned(joint_posterior(self.driver, ids, self.draws, self._seed(), self.noise, pool))

    def _reduced(self, of_quantities: torch.Tensor) -> torch.Tensor:
        """Return one number a sample, (N,), of those of its quantities, (T, N)."""
        scores: torch.Tensor = reduce_map(of_quantities.T, self.reduce)
        return scores


class MaxVarianceQuery(_ByVariance):
    """Ask for the samples whose predictions have the largest variance.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    of
        ``"total"``: the variance of a label, the noise that the learner predicts included. ``"model"``: the variance
        between posterior samples, or that of a Gaussian process without noise; it is what labels reduce, and where the
        noise varies over the inputs the better choice.
    reduce
        ``"mean"``, ``"max"`` or ``"sum"``: how the variances of several quantities, or of the values of a field, become
        one number.
    draws
        Number of models that MC dropout draws, where the learner has dropout layers and doesn't return posterior
        samples.
    noise
        Variance of the noise of a label where the learner predicts none, as a share of the mean variance over the
        candidates. It matters for the second and later picks of a step alone.

    Notes
    -----
    The variance is that of `alcore.outputs.mean_and_variance`, whatever the learner: one that predicts it, an
    ensemble, MC dropout, a Gaussian process. Where the learner gives a joint posterior (all but a single network that
    predicts means and variances), a pick lowers the variances of samples that vary with it, as its label will:
    ``v(x) - c(x, p)^2 / (v(p) + s(p))`` for covariances c and the noise s of the label; pending samples count as
    picked. That is exact for a Gaussian process, whose variances don't depend on the labels, and makes the step the
    greedy choice for the entropy of all picks together (Krause, Singh and Guestrin, JMLR 2008). K posterior samples
    tell of K - 1 picks at most; further ones are arbitrary. Without a joint posterior the highest scores are taken.
    Where the run chooses by score per cost, the variance is divided by what a label is expected to cost.

    Where labels have a fidelity, what is to be learned are predictions at the highest one. Then the score of a sample x
    is what its label takes off the variance of the same sample h at the highest fidelity, ``c(x, h)^2 / (v(x) + s(x))``
    without the noise there, whatever `of` says. A learner without a joint posterior can't tell; the variance at the
    fidelity of the sample is taken.

    Time O(N) forward passes, and O(N k (K + k)) for k picks, O(N k n^2) for a Gaussian process of n labels; memory
    O(N K T) for T quantities. It helps where the variance is large where the learner is wrong. It is known to prefer
    the border of the space, where a label tells least of the rest: compare with `ALCQuery`.

    References
    ----------
    MacKay (1992), Information-based objective functions for active data selection, Neural Computation 4; Seo, Wallat,
    Graepel and Obermayer (2000), Gaussian process regression: active data selection and test point rejection, IJCNN.
    """

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        of: Literal["total", "model"] = "total",
        reduce: Reduce = "mean",
        draws: int = 20,
        noise: float = 0.01,
    ) -> None:
        super().__init__(max_samples, candidates, reduce, draws, noise)
        check_choice("MaxVarianceQuery", "of", of, ("total", "model"))
        self.of = of

    def _check(self, ids: torch.Tensor) -> None:
        if not self._is_joint(ids) and self.of == "model":
            raise no_joint(self.driver, self._outputs(ids))

    def _is_joint(self, ids: torch.Tensor) -> bool:
        return has_covariance(self.driver.learner) or self._outputs(ids[:1]).dim() == 3

    def choose(
        self,
        candidates: Features,
        labeled: Features,
        n: int,
        pending: Features | None = None,
        costs: torch.Tensor | None = None,
    ) -> Chosen:
        """Return positions, int64 (n,), and their variances when picked, or variances per cost, float64 (n,)."""
        del labeled
        if not self._is_joint(candidates.ids):
            return self._highest(candidates.ids, n, costs)
        waiting = pending.ids if pending is not None else candidates.ids[:0]
        if (pool := with_highest_fidelity(self.driver.choice_pool, candidates.ids)) is not None:
            return self._highest_fidelity(pool, candidates.ids, waiting, n, costs)
        posterior = self._conditioned(torch.cat([candidates.ids, waiting]))
        count = len(candidates.ids)
        for place in range(count, count + len(waiting)):
            posterior.add(place)
        return greedy(n, lambda: self._scores(posterior)[:count], posterior.add, costs)

    def _scores(self, posterior: Conditioned) -> torch.Tensor:
        return self._reduced(posterior.variance if self.of == "model" else posterior.label_variance())

    def _highest_fidelity(
        self,
        pool: WithHighestFidelity,
        ids: torch.Tensor,
        waiting: torch.Tensor,
        n: int,
        costs: torch.Tensor | None,
    ) -> Chosen:
        """Choose by what a label takes off the variance of the same sample at the highest fidelity."""
        count, end = len(ids), len(ids) + len(waiting)
        posterior = self._conditioned(torch.cat([ids, waiting, ids + pool.offset]), pool)
        shared = posterior.joint.paired(torch.arange(count), torch.arange(end, end + count))  # (T, N)

        def add(place: int) -> None:
            told = posterior.add(place)
            shared.sub_(told[:, :count] * told[:, end:])

        for place in range(count, end):
            add(place)
        return greedy(n, lambda: self._reduced(shared.square() * posterior.tells()[:, :count]), add, costs)

    def _highest(self, ids: torch.Tensor, n: int, costs: torch.Tensor | None) -> Chosen:
        kind, best, start = kind_of(self.driver.learner, "regression"), TopK(n), 0
        for part, outputs in chunks(self.driver, ids=ids):
            variance = mean_and_variance(outputs, kind).variance
            end = start + len(part)
            scores = reduce_map(variance, self.reduce).cpu()
            best.add(torch.arange(start, end), per_cost(scores, None if costs is None else costs[start:end]))
            start = end
        return best.result()


class ALCQuery(_ByVariance):
    """Ask for the samples whose labels would take most off the variance of all predictions (ALC, Cohn's criterion).

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and
        None takes all.
    reference
        How many unlabeled samples stand for all inputs, drawn at random in each step.
    reduce
        ``"mean"``, ``"max"`` or ``"sum"``: how what several quantities would lose becomes one number.
    draws
        Number of models that MC dropout draws, where the learner has dropout layers and doesn't return posterior
        samples.
    noise
        Variance of the noise of a label where the learner predicts none, as a share of the mean variance over the
        candidates.

    Notes
    -----
    The score of a candidate x is the mean over the reference sample of what a label of x takes off the variance there,
    ``mean_r c(x, r)^2 / (v(x) + s(x))``, for the posterior covariances c, variances v and the noise s of a label
    (Cohn 1996; for Gaussian processes Seo et al. 2000). Each pick updates them, and so does each pending sample:
    ``c(x, r) - c(x, p) c(p, r) / (v(p) + s(p))``. For a Gaussian process with fixed hyperparameters that is exact, and
    no label needs to be known. For an ensemble and MC dropout, c is the covariance of K posterior samples, which has
    errors of ``1 / sqrt(K)`` even where predictions are independent; with few models it may be no better than
    `MaxVarianceQuery`, and K samples tell of K - 1 picks at most. A learner that predicts mean and variance of each
    sample alone is refused. Where the run chooses by score per cost, the variance that is taken off is divided by what
    the label is expected to cost. Where labels have a fidelity, the reference sample has the highest one, so that
    labels of lower ones count as far as they tell of it.

    Time O(N R (n + k)) for N candidates, R reference samples, n labels (of a Gaussian process, else K) and k picks;
    memory O(N R T) for T quantities: 40 MB each by default. Fields are refused. It helps where predictions are wanted
    over the whole space, since it does not ask at its border first. It is known to hurt where hyperparameters are still
    wrong, and where errors are wanted small in few places.

    References
    ----------
    Cohn (1996), Neural network exploration using optimal experiment design, Neural Networks 9; Cohn, Ghahramani and
    Jordan (1996), Active learning with statistical models, JAIR 4; Seo, Wallat, Graepel and Obermayer (2000), Gaussian
    process regression: active data selection and test point rejection, IJCNN.
    """

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = 10_000,
        reference: int = 500,
        reduce: Reduce = "mean",
        draws: int = 20,
        noise: float = 0.01,
    ) -> None:
        super().__init__(max_samples, candidates, reduce, draws, noise)
        if reference < 1:
            raise UsageError(f"ALCQuery: reference is {reference}; at least 1 sample must stand for the others.")
        self.reference = reference

    def _check(self, ids: torch.Tensor) -> None:
        if has_covariance(self.driver.learner):
            return
        own = self.driver.infer(self.driver.choice_pool.inputs(ids))
        if own.dim() > 3:
            raise UsageError(
                f"the learner returned fields of shape {tuple(own.shape)}, and covariances between all values of all "
                "candidates would be needed; use --query max-variance, which needs their variances alone."
            )
        outputs = self._outputs(ids)
        if outputs.dim() != 3:
            raise no_joint(self.driver, outputs)

    def choose(
        self,
        candidates: Features,
        labeled: Features,
        n: int,
        pending: Features | None = None,
        costs: torch.Tensor | None = None,
    ) -> Chosen:
        """Return positions, int64 (n,), and scores, or scores per cost, float64 (n,)."""
        del labeled
        others = subset(self.driver, self.reference, self.generator("reference"))
        if (pool := with_highest_fidelity(self.driver.choice_pool, candidates.ids)) is not None:
            others = others + pool.offset
        waiting = pending.ids if pending is not None else candidates.ids[:0]
        posterior = self._conditioned(torch.cat([candidates.ids, others, waiting]), pool)
        count, end = len(candidates.ids), len(candidates.ids) + len(others)
        self._refuse_large(len(posterior.variance), count, len(others))
        shared = posterior.joint.covariance(torch.arange(count), torch.arange(count, end))  # (T, N, R)

        def add(place: int) -> None:
            told = posterior.add(place)
            for quantity, vector in zip(shared, told, strict=True):
                quantity.addr_(vector[:count], vector[count:end], alpha=-1)

        def scores() -> torch.Tensor:
            taken = torch.stack([quantity.square().sum(dim=1) for quantity in shared]) / len(others)
            return self._reduced(taken * posterior.tells()[:, :count])

        for place in range(end, end + len(waiting)):
            add(place)
        return greedy(n, scores, add, costs)

    @staticmethod
    def _refuse_large(quantities: int, candidates: int, reference: int) -> None:
        if (numbers := quantities * candidates * reference) > _MOST_NUMBERS:
            raise UsageError(
                f"ALCQuery: the covariances of {candidates} candidates with {reference} reference samples, for "
                f"{quantities} quantities, take {numbers * 8 / 1e9:.0f} GB, and it takes up to "
                f"{_MOST_NUMBERS * 8 / 1e9:.0f} GB; make candidates and reference smaller (--set "
                "query.alc.candidates=300 --set query.alc.reference=100), or use --query max-variance."
            )


def greedy(
    n: int, scores: Callable[[], torch.Tensor], add: Callable[[int], Any], costs: torch.Tensor | None = None
) -> Chosen:
    """Pick n times the highest score, or score per cost, which each pick changes.

    Parameters
    ----------
    n
        How many to pick.
    scores
        Returns the scores of all candidates, (N,).
    add
        Is called with the position of each pick.
    costs
        What each candidate costs, (N,), where that counts.

    Returns
    -------
    tuple of torch.Tensor
        Positions, int64 (n,), each once, and their scores when picked, float64 (n,). Ties go to the lower position.
    """
    picks: list[int] = []
    reductions: list[float] = []
    while len(picks) < n:
        now = per_cost(scores(), costs).clone()
        now[picks] = -torch.inf
        picks.append(int(now.numpy().argmax()))  # the first one of equal ones
        reductions.append(float(now[picks[-1]]))
        if len(picks) < n:
            add(picks[-1])
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(reductions, dtype=torch.float64)
