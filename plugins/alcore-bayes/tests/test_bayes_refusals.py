"""What the strategies refuse, before anything is trained, and what they can't rank."""

import math

import pytest
import torch
from alcore_bayes import (
    BALDQuery,
    BatchBALDQuery,
    CommitteeQuery,
    MeanStdQuery,
    PowerBALDQuery,
    VariationRatioQuery,
)
from alcore_testing import ask, build_driver, prepare
from torch import nn

from alcore import TensorPool, UsageError
from alcore.errors import QueryError

every_strategy = pytest.mark.parametrize(
    "strategy", [BALDQuery, BatchBALDQuery, CommitteeQuery, MeanStdQuery, PowerBALDQuery, VariationRatioQuery]
)


def points():
    return torch.randn(90, 4, generator=torch.Generator().manual_seed(1))


def pool_of(inputs, targets=None):
    return TensorPool(inputs, torch.arange(len(inputs)) % 3 if targets is None else targets, labeled=[0, 1])


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


@every_strategy
@pytest.mark.parametrize(
    ("learner", "settings", "words"),
    [
        (nn.Linear(4, 3), {}, "the learner Linear gives no posterior samples.*has no dropout layer"),
        (network(), {"pool": pool_of(points(), targets=torch.rand(90))}, "the task of this data is regression"),
        (network(), {"inference_fn": lambda learner, x: learner(x)[None]}, r"returned 1 sample of the posterior"),
        (network(), {"inference_fn": lambda learner, x: {"y": learner(x)}}, "returned a dict"),
        (network(), {"inference_fn": lambda learner, x: learner(x)[:, :, None, None]}, r"\(2, 3, 1, 1\)"),
        (nn.Sequential(nn.Dropout(0.5), nn.Unflatten(1, (2, 2)), nn.Flatten(0, 1)), {}, "must be on the first axis"),
    ],
)
def test_refused_before_step_0(tmp_path, strategy, learner, settings, words):
    driver = build_driver(
        tmp_path, strategy(2), learner=learner, skip_training=True, **{"pool": pool_of(points()), **settings}
    )
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()


def test_dropout_across_samples_is_refused_before_step_0(tmp_path):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.drop(x.t()).t())

    driver = build_driver(tmp_path, BALDQuery(2), learner=Turned(), pool=pool_of(points()), skip_training=True)
    with pytest.raises(UsageError, match=r"'drop' was given units of shape \(2,\) a sample, and then \(3,\)"):
        driver.run()


def test_nan_is_refused_by_name_in_a_batch(tmp_path):
    inputs = points()
    inputs[41] = torch.nan
    with pytest.raises(QueryError, match="probabilities of sample 41 are NaN"):
        ask(prepare(build_driver(tmp_path, BatchBALDQuery(5, samples=3), learner=network(), pool=pool_of(inputs))))


def test_nan_is_refused_by_name_among_ranks(tmp_path):
    inputs = points()
    inputs[41] = torch.nan
    query = PowerBALDQuery(5, samples=3, noise="softrank")
    with pytest.raises(QueryError, match="score of sample 41 is NaN"):
        ask(prepare(build_driver(tmp_path, query, learner=network(), pool=pool_of(inputs))))


@pytest.mark.parametrize(
    ("strategy", "parameters", "words"),
    [
        (BALDQuery, {"samples": 1}, "BALDQuery: samples is 1; at least 2"),
        (BatchBALDQuery, {"samples": 0}, "BatchBALDQuery: samples is 0"),
        (BatchBALDQuery, {"max_samples": -1}, "BatchBALDQuery: max_samples is -1"),
        (BatchBALDQuery, {"candidates": 0}, "candidates is 0; it must be a count of at least 1, or a fraction"),
        (BatchBALDQuery, {"candidates": 1.5}, "candidates is 1.5"),
        (BatchBALDQuery, {"candidates": math.nan}, "candidates is nan"),
        (BatchBALDQuery, {"num_samples": 0}, "num_samples is 0"),
        (VariationRatioQuery, {"of": "mode"}, "of is 'mode'; it must be one of votes, mean"),
        (CommitteeQuery, {"measure": "votes"}, "measure is 'votes'; it must be one of vote_entropy, kl"),
        (PowerBALDQuery, {"noise": "rank"}, "noise is 'rank'; it must be one of power, softmax, softrank"),
        (PowerBALDQuery, {"beta": 0.0}, "beta is 0.0; it must be a finite number above 0"),
        (PowerBALDQuery, {"beta": math.inf}, "beta is inf"),
        (PowerBALDQuery, {"beta": math.nan}, "beta is nan"),
    ],
)
def test_bad_parameters(strategy, parameters, words):
    with pytest.raises(UsageError, match=words):
        strategy(**parameters)
