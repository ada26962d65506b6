"""The strategy with a real Driver."""

import queue
import random

import numpy as np
import pytest
import torch
from alcore_testing import rows_at_once
from alcore_uq import ClassifierUQQuery
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError
from alcore.outputs import entropy, least_confidence, margin

MEASURES = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}


class Column(list):
    """Takes in what a strategy asks for, as the query queue does."""

    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = list(scores)


def make_driver(folder, pool, query, learner=None, **options):
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=1, skip_training=True, root_log_dir=folder, device="cpu", seed=0
        ),
        learner or torch.nn.Identity(),
        c.StrategiesConfig(query_strategies=[query], queue_cls=queue.Queue),
        c.TrainingConfig(pool, max_training_epochs=0),
        **options,
    )


def pool_of(outputs, labeled):
    """A pool whose inputs are the outputs themselves, for a learner that changes nothing."""
    classes = max(outputs.shape[1], 2) if outputs.dim() > 1 else 2
    return TensorPool(outputs, torch.arange(len(outputs)) % classes, labeled=labeled)


def brute_force(outputs, labeled, n, measure):
    """Score the whole pool at once, sort by (score, id), and keep the first n that are not labeled."""
    scores = MEASURES[measure](outputs).tolist()
    candidates = sorted(set(range(len(outputs))) - set(labeled))
    return sorted(candidates, key=lambda sample: (-scores[sample], sample))[:n]


@st.composite
def problems(draw):
    """Outputs with many ties, and what of them is labeled."""
    size, columns = draw(st.integers(1, 70)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**16))
    outputs = torch.randint(-2, 3, (size, columns), generator=torch.Generator().manual_seed(seed)).float()
    labeled = draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size))
    return outputs, labeled


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(),
    n=st.integers(0, 80),
    measure=st.sampled_from(sorted(MEASURES)),
    chunk=st.sampled_from([1, 7, 32, 4096]),
)
def test_picks_equal_brute_force_over_the_whole_pool(problem, n, measure, chunk):
    outputs, labeled = problem
    query = ClassifierUQQuery(n, measure)
    driver = make_driver("not-made", pool_of(outputs, labeled), query)
    asked = Column()
    with rows_at_once(chunk):
        query.sample(asked)
    assert asked == brute_force(outputs, labeled, n, measure)
    assert len(asked) == min(n, len(outputs) - len(labeled))
    assert asked.scores == [MEASURES[measure](outputs)[sample].item() for sample in asked]
    assert not driver.log_dir.exists()


def test_a_run_asks_for_these_samples(tmp_path):
    outputs = torch.randn(200, 3, generator=torch.Generator().manual_seed(5))
    pool = pool_of(outputs, labeled=range(0, 200, 4))
    driver = make_driver(tmp_path, pool, ClassifierUQQuery(12, "margin"))
    driver.run()
    assert [request.sample for request in driver.query_queue.asked] == brute_force(
        outputs, range(0, 200, 4), 12, "margin"
    )


def test_a_second_round_asks_for_none_of_the_first(tmp_path):
    outputs = torch.randn(30, generator=torch.Generator().manual_seed(5))
    driver = make_driver(tmp_path, pool_of(outputs, labeled=[3]), ClassifierUQQuery(20))
    rounds = []
    with driver.session():
        for _ in range(3):
            driver.active_learning_step()
            rounds.append([request.sample for request in driver.query_queue.asked])
    assert rounds[0] == brute_force(outputs, [3], 20, "entropy")
    assert rounds[1] == brute_force(outputs, [3, *rounds[0]], 20, "entropy")
    assert list(map(len, rounds)) == [20, 9, 0]


def test_posterior_samples_through_a_driver(tmp_path):
    samples = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(2))  # sample, draw, class
    pool = TensorPool(samples, torch.arange(50) % 3, labeled=[0])
    query = ClassifierUQQuery(6, "entropy")
    driver = make_driver(tmp_path, pool, query, inference_fn=lambda learner, x: learner(x).transpose(0, 1))
    driver.run()
    mean = torch.softmax(samples.double(), dim=2).mean(dim=1).log()
    assert [request.sample for request in driver.query_queue.asked] == brute_force(mean, [0], 6, "entropy")


def test_posterior_samples_of_probabilities_through_a_driver(tmp_path):
    samples = torch.softmax(torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(2)), dim=2)

    class Sure(torch.nn.Identity):
        outputs = "probabilities"

    pool = TensorPool(samples, torch.arange(50) % 3, labeled=[0])
    query = ClassifierUQQuery(6, "margin")
    driver = make_driver(tmp_path, pool, query, Sure(), inference_fn=lambda learner, x: learner(x).transpose(0, 1))
    driver.run()
    mean = samples.double().mean(dim=1).log()
    assert [request.sample for request in driver.query_queue.asked] == brute_force(mean, [0], 6, "margin")


def test_probabilities_are_taken_as_the_learner_says(tmp_path):
    class Sure(torch.nn.Identity):
        outputs = "probabilities"

    driver = make_driver(tmp_path, pool_of(torch.tensor([0.1, 0.5, 0.01, 0.9, 0.6]), [0]), ClassifierUQQuery(3), Sure())
    driver.run()
    assert [request.sample for request in driver.query_queue.asked] == [1, 4, 3]  # as logits it would be 2, 1, 4


# -- what it refuses, before anything runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "inference", "words"),
    [
        (TensorPool(torch.zeros(4, 1), torch.rand(4), labeled=[0]), None, "regression"),
        (TensorPool(torch.zeros(4, 1), torch.arange(4) % 2, labeled=[0]), lambda m, x: {"y": x}, "inference_fn"),
        (TensorPool(torch.zeros(4, 1), torch.arange(4) % 2, labeled=[0]), lambda m, x: x.long(), "int64"),
        (
            TensorPool(torch.zeros(4, 2, 3, 5, dtype=torch.int64), torch.arange(4) % 2, labeled=[0]),
            None,
            "map of .*int64",
        ),
        (TensorPool(torch.zeros(4, 5, 3), torch.arange(4) % 2, labeled=[0]), None, r"\(2, 5, 3\) for 2 samples"),
    ],
)
def test_refused_before_step_0(tmp_path, pool, inference, words):
    driver = make_driver(tmp_path, pool, ClassifierUQQuery(2), inference_fn=inference)
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()


def test_a_pool_that_cannot_be_chosen_from_is_refused_with_the_remedy(tmp_path):
    driver = make_driver(tmp_path, [(torch.zeros(1), 0)], ClassifierUQQuery(2))
    with pytest.raises(UsageError, match=r"unlabeled_indices\(\).*TensorPool"):
        driver.run()


def test_a_nan_score_is_an_error_that_names_the_sample(tmp_path):
    outputs = torch.zeros(60, 3)
    outputs[41, 1] = torch.nan
    driver = make_driver(tmp_path, pool_of(outputs, [0]), ClassifierUQQuery(5))
    with pytest.raises(QueryError, match="sample 41 is NaN"):
        driver.run()


def test_bad_parameters():
    with pytest.raises(UsageError, match=r"reduce is 'median'; it must be one of mean, max, sum"):
        ClassifierUQQuery(reduce="median")
    for temperature in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"temperature is .*positive and finite"):
            ClassifierUQQuery(temperature=temperature)
    with pytest.raises(UsageError, match=r"'entropie'.*least_confidence, margin, entropy"):
        ClassifierUQQuery(measure="entropie")
    with pytest.raises(UsageError, match="max_samples is -1"):
        ClassifierUQQuery(-1)
    assert ClassifierUQQuery().max_samples == 10
    assert ClassifierUQQuery().measure == "least_confidence"


# -- what it leaves as it was ------------------------------------------------------------------------------------------


def test_modes_and_statistics_of_the_learner_stay(tmp_path):
    learner = torch.nn.Sequential(
        torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 1),
    )  # fmt: skip
    learner.train()
    learner[0].eval()  # a frozen layer
    before = [module.training for module in learner.modules()]
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    pool = TensorPool(torch.randn(100, 2), torch.arange(100) % 2, labeled=[0, 1])
    driver = make_driver(tmp_path, pool, ClassifierUQQuery(5), learner)
    driver.run()
    assert [module.training for module in learner.modules()] == before
    assert before.count(False) == 1
    for name, value in learner.state_dict().items():
        assert torch.equal(value, state[name]), name  # running statistics would move in train mode
    learner.eval()
    expected = brute_force(learner(pool.inputs(torch.arange(100))).detach(), [0, 1], 5, "margin")
    assert [request.sample for request in driver.query_queue.asked] == expected  # dropout was off


def test_the_global_generators_are_untouched():
    query = ClassifierUQQuery(5)
    make_driver("not-made", pool_of(torch.randn(50), [0]), query)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    query.check()
    query.sample(Column())
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_plugin_offers_its_parts_by_name():
    import alcore_uq

    from alcore import plugins

    assert plugins.installed().make("query", "uq", max_samples=3).max_samples == 3
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alcore_uq.nothing
