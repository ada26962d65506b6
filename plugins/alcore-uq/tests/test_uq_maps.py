"""Outputs with one prediction a position: the scores of the positions, reduced to one a sample."""

import queue

import pytest
import torch
from alcore_uq import ClassifierUQQuery

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.errors import QueryError
from alcore.outputs import entropy, least_confidence, margin

MEASURES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}
REDUCTIONS = {"mean": torch.mean, "max": torch.amax, "sum": torch.sum}


class Column(list):
    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = scores


def asked(outputs, query, kind="logits"):
    learner = torch.nn.Identity()
    learner.outputs = kind
    Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=1, skip_training=True, device="cpu", seed=0),
        learner,
        c.StrategiesConfig(query_strategies=[query], queue_cls=queue.Queue),
        c.TrainingConfig(TensorPool(outputs, torch.arange(len(outputs)) % 2), max_training_epochs=0),
    )
    query.check()
    column = Column()
    query.sample(column)
    return column


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", [(30, 3, 4, 5), (30, 1, 2, 3), (30, 2, 2, 2, 2)])
def test_against_one_position_at_a_time(shape, measure, reduce, kind):
    outputs = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 2
    outputs = outputs if kind == "logits" else outputs.softmax(1) if shape[1] > 1 else outputs.sigmoid()
    scores = []
    for sample in outputs.double():
        positions = sample.flatten(1).t()
        if shape[1] == 1:  # a binary prediction has no entropy in its logit; its two probabilities have
            positive = torch.sigmoid(positions) if kind == "logits" else positions
            by_position = MEASURES[measure](torch.cat([1 - positive, positive], dim=1), "probabilities")
        else:
            by_position = MEASURES[measure](positions, kind)
        scores.append(REDUCTIONS[reduce](by_position, dim=0))
    scores = torch.stack(scores)
    expected = torch.sort(scores, descending=True, stable=True)
    picks = asked(outputs, ClassifierUQQuery(8, measure, reduce=reduce), kind)
    assert picks == expected.indices[:8].tolist()
    torch.testing.assert_close(
        torch.tensor(picks.scores, dtype=torch.float64), expected.values[:8], rtol=1e-5, atol=1e-6
    )


def test_temperature_counts_for_maps():
    outputs = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 3
    picks = asked(outputs, ClassifierUQQuery(10, "entropy", temperature=5.0))
    assert picks == asked(outputs / 5.0, ClassifierUQQuery(10, "entropy"))
    assert picks != asked(outputs, ClassifierUQQuery(10, "entropy"))


def test_one_bad_position_names_the_sample():
    outputs = torch.zeros(40, 3, 2, 2)
    outputs[17, 1, 0, 1] = torch.nan
    with pytest.raises(QueryError, match="score of sample 17 is NaN"):
        asked(outputs, ClassifierUQQuery(3))
