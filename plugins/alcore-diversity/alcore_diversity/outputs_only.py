"""A base class for strategies that look at the learner's outputs, so that no features need to be held."""

from __future__ import annotations

from typing import Any

import torch

from alcore import scoring
from alcore.features import Embedded
from alcore.outputs import check_outputs
from alcore.protocols import QueryQueue
from alcore.state import undisturbed
from alcore.strategies import SetQuery


class OutputsQuery(SetQuery):
    """A set-based query strategy whose `choose` gets samples without features: shape (N, 0).

    Notes
    -----
    Memory is O(N C), whatever the size of inputs. Of labelled samples `choose` gets the targets alone.
    """

    needs_features = False
    """Whether `choose` wants features after all, as `alcore.SetQuery` gives them."""

    def sample(self, query_queue: QueryQueue, *args: Any, **kwargs: Any) -> None:
        """Ask for the samples that `choose` returns."""
        if self.needs_features:
            super().sample(query_queue, *args, **kwargs)
            return
        ids = scoring.subset(self.driver, self.candidates, self.generator("candidates"))
        n = min(self.wanted, len(ids))
        if not n:
            return
        batches = [check_outputs(outputs).detach().cpu() for _, outputs in scoring.chunks(self.driver, ids=ids)]
        outputs = torch.cat(batches, dim=1 if batches[0].dim() == 3 else 0)
        candidates = Embedded(ids, torch.empty(len(ids), 0), outputs)
        chosen = self.choose(candidates, self._labelled(), n)
        positions, scores = chosen if isinstance(chosen, tuple) else (chosen, None)
        query_queue.put_many(ids[positions].tolist(), None if scores is None else scores.tolist())

    def _labelled(self) -> Embedded:
        pool = self.driver.train_datapool
        targets = None
        if self.needs_labelled and pool is not None and len(pool):
            with undisturbed():  # a pool may augment what it returns
                targets = torch.cat([target.cpu() for _, target in self.driver.ordered_batches(pool)])
        count = 0 if targets is None else len(targets)
        return Embedded(torch.full((count,), -1), torch.empty(count, 0), torch.empty(count, 0), targets)
