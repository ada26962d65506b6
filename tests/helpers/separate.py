"""A pool to train on and another to choose from, a query strategy that asks for the last samples, and an expert."""

from __future__ import annotations

import torch

from alcore import BaseLabel, BaseQuery, Data, DataInfo, Label, TensorPool

INFO = DataInfo("classification", 2, 1, (1,), ("a", "b"))


def separate_pools() -> Data:
    """Two labeled items, and six others to choose from, whose inputs are 10, 11, 12 and so on."""
    train = TensorPool(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), labeled=[0, 1], info=INFO)
    return Data(train, unlabeled=TensorPool(torch.arange(10.0, 16.0)[:, None], torch.arange(6) % 2), info=INFO)


class Last(BaseQuery):
    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(next(self.driver.candidates())[-2:].tolist())


class Expert(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            item = queue_to_label.get()
            serialize_queue.put(Label(item, int(item) % 2, source="expert", cost=2.5))
