"""The BatchBALD query strategy."""

from __future__ import annotations

import torch

from alcore.errors import QueryError, UsageError
from alcore.inference import Features, chunks
from alcore.outputs import kind_of, posterior_probabilities
from alcore.strategies import SetQuery
from alcore_bayes.batchbald import batch_bald, nan_rows
from alcore_bayes.sampling import PosteriorSamples, check_samples, check_source


class BatchBALDQuery(SetQuery):
    """Ask for the batch of samples whose classes would jointly give most information about the model (BatchBALD).

    Parameters
    ----------
    max_samples
        How many samples to ask for in a step.
    candidates
        How many unlabeled samples to choose from, drawn at random in each step; a float is a fraction of them, and None
        takes all.
    samples
        Number of posterior samples that MC dropout draws, K; not used if the learner returns (K, B, C).
    num_samples
        Largest number of joint configurations of the batch's classes. If there are more, this many are drawn at random.

    Notes
    -----
    Greedy: each sample adds the most to ``I(y_1 ... y_n; w) = H(y_1 ... y_n) - sum_i mean_k H(y_i | w_k)``, where BALD
    would count the common information of two similar samples twice. Pending samples are the first of the batch. The
    score that is recorded is what a sample added, in nats.

    Time: K forward passes over N candidates, and O(n S N C K) at most for n samples and S configurations; bounds from
    earlier rounds avoid much of it. Memory: O(K N C), 800 bytes a candidate for K = 20 and C = 10, so give `candidates`
    on large pools.

    It helps in batches from pools with near-duplicates, for which BALD asks repeatedly. It is known to hurt in large
    batches, or with many pending samples: log(K) nats identify one of K models, and once the batch has this much
    information (after 5 to 10 samples, for K = 20 models that differ much) further choices are arbitrary. Then use more
    models, or `PowerBALDQuery`, which costs as little as BALD.

    References
    ----------
    Kirsch, van Amersfoort and Gal (2019), BatchBALD: efficient and diverse batch acquisition for deep Bayesian active
    learning, NeurIPS.
    """

    needs_labeled = needs_features = False

    def __init__(
        self,
        max_samples: int = 10,
        candidates: int | float | None = None,
        samples: int = 20,
        num_samples: int = 2000,
    ) -> None:
        super().__init__(max_samples, candidates)
        if num_samples < 1:
            raise UsageError(f"BatchBALDQuery: num_samples is {num_samples}; it must be at least 1.")
        self.num_samples = num_samples
        self.samples = check_samples("BatchBALDQuery", samples)

    def check(self) -> None:
        """Raise `UsageError` for regression, and for a learner that gives no posterior samples."""
        outputs = check_source(self.driver, self.samples)
        if outputs is not None:
            posterior_probabilities(outputs, kind_of(self.driver.learner))

    def gather(self, ids: torch.Tensor) -> Features:
        """Return these samples, with their class probabilities as outputs: (K, N, C)."""
        return Features(ids, torch.empty(len(ids), 0), self._probabilities(ids))

    def choose(
        self, candidates: Features, labeled: Features, n: int, pending: Features | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions in the order of the greedy choice, and the information that each added."""
        del labeled  # not used
        outputs, chosen = candidates.outputs, 0
        if pending is not None and len(pending.ids):
            outputs, chosen = torch.cat([pending.outputs, outputs], dim=1), len(pending.ids)
        generator, safe_point = self.generator("configurations"), self.driver.safe_point
        return batch_bald(outputs, n, "probabilities", self.num_samples, generator, safe_point, chosen)

    def _probabilities(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the class probabilities of each posterior sample: (K, N, C), on the CPU."""
        source = PosteriorSamples(self.driver, self.samples, self.generator("dropout").initial_seed())
        kind, result, start = kind_of(self.driver.learner), torch.empty(0), 0
        for part, outputs in chunks(self.driver, source, ids=ids, samples=self.samples):
            p = posterior_probabilities(outputs, kind).cpu()
            if len(bad := nan_rows(p)):
                raise QueryError(
                    f"the class probabilities of sample {', '.join(map(str, part[bad].tolist()))} are NaN, so a batch "
                    "can't be chosen; look at the learner's output for it, or at its inputs."
                )
            if not start:
                result = p.new_empty(p.shape[0], len(ids), p.shape[2])
            result[:, start : start + len(part)] = p
            start += len(part)
        return result
