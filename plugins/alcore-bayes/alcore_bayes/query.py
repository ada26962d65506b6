"""Query strategies that score each sample independently of the others, from posterior samples."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from alcore.errors import UsageError, check_choice
from alcore.inference import Ranked, TopK, check_scores, chunks, top_k
from alcore.outputs import bald, kind_of, mean_std, variation_ratio, vote_entropy
from alcore.protocols import QueryQueue
from alcore.strategies import PointwiseQuery
from alcore_bayes.noise import Noise, perturb
from alcore_bayes.sampling import PosteriorSamples, check_samples, check_source


class PosteriorQuery(PointwiseQuery):
    """A pointwise query strategy whose `score` is given posterior samples; the base class of this module.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).
    """

    def __init__(self, max_samples: int = 10, samples: int = 20) -> None:
        super().__init__(max_samples)
        self.samples = check_samples(type(self).__name__, samples)
        self._source: PosteriorSamples | None = None

    @property
    def kind(self) -> str:
        """The kind of the learner's outputs: ``"logits"`` or ``"probabilities"``."""
        return kind_of(self.driver.learner)

    def infer(self, inputs: Any) -> Any:
        """Return posterior samples, the learner's own or by MC dropout: (K, B, C), or (K, B, 1) for one column.

        Parameters
        ----------
        inputs
            A batch of the pool's inputs, not yet on the learner's device.
        """
        return (self._source or self._posterior())(inputs)

    def check(self) -> None:
        """Raise `UsageError` for regression, and for a learner that gives no posterior samples."""
        outputs = check_source(self.driver, self.samples)
        if outputs is not None:
            check_scores(self.score(outputs), outputs.shape[1])

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the `max_samples` candidates with the highest scores, best first."""
        self._source = self._posterior()  # one for all chunks, since its masks are drawn once
        try:
            self._sample(query_queue)
        finally:
            self._source = None

    def _sample(self, query_queue: QueryQueue) -> None:
        best = top_k(
            self.driver, self.score, self.wanted, self.infer, self.estimate, samples=self.samples, worth=self.worth
        )
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())

    def _posterior(self) -> PosteriorSamples:
        return PosteriorSamples(self.driver, self.samples, self.generator("dropout").initial_seed())


class BALDQuery(PosteriorQuery):
    """Ask for the samples whose class would give most information about the model (BALD).

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).

    Notes
    -----
    The score is the mutual information between class and model, ``H(mean_k p_k) - mean_k H(p_k)``: high where each
    model is certain and they disagree, low where all models agree on an uncertain prediction.

    Time: K forward passes over N candidates, and O(K N C). Memory: O(chunk + max_samples).

    It helps where the labels of some samples are noisy, for which entropy would ask again and again. It is known to
    hurt in large batches, where it asks for near-duplicates, since samples are scored independently of each other (use
    `BatchBALDQuery` or `PowerBALDQuery`), and it can be no better than random where the posterior samples are poor.

    References
    ----------
    Houlsby, Huszar, Ghahramani and Lengyel (2011), arXiv:1112.5745; Gal, Islam and Ghahramani (2017), Deep Bayesian
    active learning with image data, ICML.
    """

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mutual information of class and model: float64 (B,), in nats."""
        return bald(outputs, self.kind, top=self.wanted)


class VariationRatioQuery(PosteriorQuery):
    """Ask for the samples where most posterior samples disagree with the most common prediction.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).
    of
        ``"votes"`` counts predicted classes, ``1 - max_c votes_c / K``; ``"mean"`` takes the mean probabilities,
        ``1 - max_c mean_k p_kc``.

    Notes
    -----
    Time: K forward passes over N candidates, and O(K N C). Memory: O(chunk + max_samples).

    It is simple and robust, and was as good as BALD in the experiments of Gal et al. Votes have at most K values: if
    more samples tie than are asked for, the lowest ids are taken, which is biased in a sorted pool; ``of="mean"``
    rarely ties. ``"mean"`` does not distinguish disagreement from noise.

    References
    ----------
    Freeman (1965), Elementary applied statistics; Gal, Islam and Ghahramani (2017), Deep Bayesian active learning with
    image data, ICML.
    """

    def __init__(self, max_samples: int = 10, samples: int = 20, of: Literal["votes", "mean"] = "votes") -> None:
        super().__init__(max_samples, samples)
        check_choice("VariationRatioQuery", "of", of, ("votes", "mean"))
        self.of = of

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the share of predictions that differ from the most common one: float64 (B,)."""
        return variation_ratio(outputs, self.kind, self.of, top=self.wanted)


class MeanStdQuery(PosteriorQuery):
    """Ask for the samples whose class probabilities vary most over the posterior.

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).

    Notes
    -----
    The score is ``mean_c std_k(p_kc)``, with the standard deviation of the K values (not corrected for K - 1).

    Time: K forward passes over N candidates, and O(K N C). Memory: O(chunk + max_samples).

    It helps, like BALD, where the models disagree. A difference between two likely classes counts as much as one of
    the same size between unlikely ones; it was worse than BALD and variation ratios in the experiments of Gal et al.

    References
    ----------
    Kampffmeyer, Salberg and Jenssen (2016), CVPR workshops; Kendall, Badrinarayanan and Cipolla (2017), BMVC.
    """

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean standard deviation of the class probabilities: float64 (B,)."""
        return mean_std(outputs, self.kind, top=self.wanted)


class CommitteeQuery(PosteriorQuery):
    """Ask for the samples about which the members of a committee disagree most (query by committee).

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of members that MC dropout draws, K; not used if the learner returns (K, B, C), as an ensemble does.
    measure
        ``"vote_entropy"``: the entropy of the members' votes, ``-sum_c v_c log(v_c)``. ``"kl"``: the mean divergence of
        the members from their mean, ``mean_k KL(p_k || mean_j p_j)``, the same quantity as BALD.

    Notes
    -----
    Time: K forward passes over N candidates, and O(K N C). Memory: O(chunk + max_samples).

    It helps with a small ensemble (``--learner ensemble``), whose members differ more than models drawn by
    dropout. Votes ignore how certain the members are, and often tie; of equal scores the lowest ids are taken. As with
    BALD, large batches contain near-duplicates.

    References
    ----------
    Seung, Opper and Sompolinsky (1992), Query by committee, COLT; Engelson and Dagan (1996), ACL, for vote entropy;
    McCallum and Nigam (1998), ICML, for the divergence.
    """

    def __init__(
        self, max_samples: int = 10, samples: int = 20, measure: Literal["vote_entropy", "kl"] = "vote_entropy"
    ) -> None:
        super().__init__(max_samples, samples)
        check_choice("CommitteeQuery", "measure", measure, ("vote_entropy", "kl"))
        self.measure = measure

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return how much the members disagree: float64 (B,), in nats."""
        if self.measure == "kl":
            return bald(outputs, self.kind, top=self.wanted)
        return vote_entropy(outputs, self.kind)


class PowerBALDQuery(PosteriorQuery):
    """Ask for a random batch that prefers samples with high BALD scores (PowerBALD, SoftmaxBALD, SoftrankBALD).

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).
    beta
        How strongly high scores are preferred: near 0 the choice is nearly uniform, and for large values that of BALD.
    noise
        ``"power"``: with probabilities proportional to s^beta (PowerBALD). ``"softmax"``: to exp(beta s) (SoftmaxBALD).
        ``"softrank"``: to r^-beta, where r is the rank of the score (SoftrankBALD).

    Notes
    -----
    Each candidate's score s is perturbed by Gumbel noise g, drawn in ascending order of the ids, and the highest are
    taken: ``log(s) + g / beta``, ``s + g / beta`` or ``-log(r) + g / beta``. These are the scores that are recorded.

    Time: that of `BALDQuery`. Memory: O(chunk + max_samples); ``"softrank"`` holds a score for each candidate, O(N).

    It costs no more than BALD, and in the experiments of its authors is as good as BatchBALD for the batch sizes that
    BatchBALD can handle, and also works for larger ones. It is known to hurt where a step asks for a single sample,
    which should be the best one. Softmax depends on the scale of the scores: BALD scores are often below 0.1, for which
    beta = 1 is close to random choice.

    References
    ----------
    Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal (2023), Stochastic batch acquisition, TMLR.
    """

    def __init__(self, max_samples: int = 10, samples: int = 20, beta: float = 1.0, noise: Noise = "power") -> None:
        super().__init__(max_samples, samples)
        if not 0 < beta < math.inf:
            raise UsageError(f"PowerBALDQuery: beta is {beta}; it must be a finite number above 0.")
        check_choice("PowerBALDQuery", "noise", noise, ("power", "softmax", "softrank"))
        self.beta, self.noise = float(beta), noise

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the BALD score without noise: float64 (B,), in nats."""
        return bald(outputs, self.kind)

    def _sample(self, query_queue: QueryQueue) -> None:
        k, generator = self.wanted, self.generator("noise")
        if self.noise == "softrank":
            best = self._by_rank(k, generator)
        else:
            best = top_k(
                self.driver,
                lambda out: self._perturbed(self.score(out), generator),
                k,
                self.infer,
                samples=self.samples,
            )
        query_queue.put_many(best.ids.tolist(), best.scores.tolist())

    def _by_rank(self, k: int, generator: torch.Generator) -> Ranked:
        best = TopK(k)
        stream = chunks(self.driver, self.infer, samples=self.samples) if k else ()
        scored = [(ids, self.score(outputs)) for ids, outputs in stream]
        if scored:
            ids, scores = map(torch.cat, zip(*scored, strict=True))
            best.add(ids, self._perturbed(scores, generator))
        return best.result()

    def _perturbed(self, scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return perturb(scores, generator, self.noise, self.beta)
