"""The strategies that look at candidates and labeled samples together, with a real Driver."""

import queue
import random

import numpy as np
import pytest
import torch
from alcore_metrics import RegressionMetrology
from alcore_random import RandomQuery
from alcore_regression import (
    EMCMQuery,
    GSxQuery,
    GSyQuery,
    IGSQuery,
    bootstrap_committee,
    expected_model_change,
    gsx,
    gsy,
    igs,
)
from alcore_testing import toy_loop

from alcore import BaseLabel, DataInfo, Driver, Label, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError
from alcore.protocols import Phase

QUERIES = [GSxQuery, GSyQuery, IGSQuery, EMCMQuery]
every_query = pytest.mark.parametrize("query_class", QUERIES)


class Column(list):
    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = list(scores)


def make_driver(query, pool, learner=None, *, folder="not-made", steps=1, unlabeled=None, **options):
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu", seed=3
        ),
        learner or torch.nn.Linear(pool.inputs(torch.tensor([0])).shape[1], 1),
        c.StrategiesConfig([query], queue.Queue, unlabeled_datapool=unlabeled),
        c.TrainingConfig(pool, max_training_epochs=0),
        **options,
    )


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pool_of(size=60, features=4, labeled=range(0, 60, 5), targets=(), seed=0, info=None):
    return TensorPool(
        draw(size, features, seed=seed), draw(size, *targets, seed=seed + 1), labeled=labeled,
        info=info or DataInfo("regression"),
    )  # fmt: skip


def asked_by(query, pool, learner=None, **options):
    make_driver(query, pool, learner, **options)
    asked = Column()
    query.check()
    query.sample(asked)
    return asked


@pytest.mark.parametrize("targets", [(), (1,), (2,)])
@every_query
def test_a_run_asks_for_what_the_function_picks(tmp_path, query_class, targets):
    pool, query = pool_of(targets=targets), query_class(7)
    learner = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.SiLU(), torch.nn.Linear(6, *targets or (1,)))
    driver = make_driver(query, pool, learner, folder=tmp_path)
    ids = pool.unlabeled_indices()
    labeled = torch.arange(0, 60, 5)
    x, x_labeled = pool.inputs(ids), pool.inputs(labeled)
    y = pool.batch(torch.arange(12))[1].reshape(12, -1)
    with torch.no_grad():
        f = learner(x)
    driver.run()
    if query_class is GSxQuery:
        positions, scores = gsx(x, x_labeled, 7)
    elif query_class is GSyQuery:
        positions, scores = gsy(f, y, 7)
    elif query_class is IGSQuery:
        positions, scores = igs(x, f, x_labeled, y, 7)
    else:
        driver.position.phase, driver.position.step = Phase.QUERY, 0  # what the generator is derived from
        with torch.no_grad():
            hidden, anchors = learner[:2](x), learner[:2](x_labeled)
        scores = expected_model_change(
            hidden, f, bootstrap_committee(anchors, y, 4, 1e-3, query.generator("bootstrap"))
        )
        positions = scores.sort(descending=True, stable=True).indices[:7]
        scores = scores[positions]
    assert [request.sample for request in driver.query_queue.asked] == ids[positions].tolist()
    np.testing.assert_allclose([request.score for request in driver.query_queue.asked], scores, rtol=1e-4)


@every_query
def test_without_labels_it_is_greedy_in_the_inputs(query_class):
    pool = pool_of(labeled=())
    unlabeled = TensorPool(draw(40, 4), None)
    query = query_class(9, layer="inputs")
    make_driver(query, pool, unlabeled=unlabeled)
    asked = Column()
    query.sample(asked)
    assert asked == gsx(draw(40, 4), torch.empty(0, 4), 9)[0].tolist()


@every_query
def test_edges(query_class):
    assert asked_by(query_class(5), pool_of(labeled=range(60))) == []
    assert asked_by(query_class(5), pool_of(labeled=range(59))) == [59]
    assert len(asked_by(query_class(500), pool_of())) == 48
    assert asked_by(query_class(0), pool_of()) == []
    assert len(asked_by(query_class(500), pool_of(labeled=[3]))) == 59


@every_query
def test_equal_samples_go_by_id(query_class):
    pool = TensorPool(torch.ones(200, 3), torch.zeros(200), labeled=[5], info=DataInfo("regression"))
    assert asked_by(query_class(6), pool) == [0, 1, 2, 3, 4, 6]


@every_query
def test_seed_decides_and_global_generators_have_no_part_in_it(query_class):
    learner = torch.nn.Linear(4, 1)
    learner.train()
    first = asked_by(query_class(8), pool_of(), learner)
    random.seed(9)
    torch.manual_seed(9)
    before = random.getstate(), torch.get_rng_state(), [value.clone() for value in learner.parameters()]
    assert asked_by(query_class(8), pool_of(), learner) == first
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert all(map(torch.equal, learner.parameters(), before[2]))
    assert learner.training
    assert all(parameter.grad is None for parameter in learner.parameters())


@every_query
def test_candidates_limits_the_samples_to_choose_from(query_class):
    learner = torch.nn.Linear(4, 1)
    assert len(asked_by(query_class(10, candidates=4), pool_of(), learner)) == 4
    few = asked_by(query_class(48, candidates=0.25), pool_of(), learner)
    assert len(few) == 12
    assert few == asked_by(query_class(48, candidates=0.25), pool_of(), learner)


@pytest.mark.parametrize("learner", [torch.nn.Flatten(0), torch.nn.Identity()], ids=["(B,)", "(B, 1)"])
def test_outputs_of_one_quantity(learner):
    pool = TensorPool(draw(30, 1), draw(30, seed=1), labeled=[0], info=DataInfo("regression"))
    expected = gsy(draw(30, 1)[1:], draw(30, seed=1)[:1, None], 5)[0] + 1
    assert asked_by(GSyQuery(5), pool, learner) == expected.tolist()


def test_posterior_samples_count_by_their_mean():
    pool = TensorPool(draw(30, 4), draw(30, seed=1), labeled=[0], info=DataInfo("regression"))
    expected = gsy(draw(30, 4)[1:].mean(dim=1, keepdim=True), draw(30, seed=1)[:1, None], 5)[0] + 1
    asked = asked_by(GSyQuery(5), pool, torch.nn.Identity(), inference_fn=lambda learner, x: learner(x).T[:, :, None])
    assert asked == expected.tolist()


def test_a_learner_that_is_no_module():
    assert len(asked_by(EMCMQuery(5), pool_of(), lambda x: x.sum(dim=1))) == 5


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query_class", QUERIES[1:])
def test_classes_are_refused_before_step_0(tmp_path, query_class):
    pool = TensorPool(draw(9, 2), torch.arange(9) % 2, labeled=[0])
    driver = make_driver(query_class(2), pool, folder=tmp_path)
    with pytest.raises(UsageError, match=r"task of this data is classification; .*data\.csv\.task=regression"):
        driver.run()
    assert not driver.log_dir.exists()


def test_greedy_sampling_in_the_inputs_takes_classes():
    pool = TensorPool(draw(9, 2), torch.arange(9) % 2, labeled=[0])
    assert len(asked_by(GSxQuery(3), pool)) == 3


@pytest.mark.parametrize("query_class", QUERIES[1:])
@pytest.mark.parametrize(
    ("inference", "words"),
    [
        (lambda m, x: {"y": x}, "inference_fn"),
        (lambda m, x: x.long(), "int64"),
        (lambda m, x: x[:, :, None, None], "4"),
    ],
)
def test_outputs_that_are_no_quantities(tmp_path, query_class, inference, words):
    driver = make_driver(query_class(2), pool_of(), folder=tmp_path, inference_fn=inference)
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()


@pytest.mark.parametrize("query_class", QUERIES[1:])
def test_other_numbers_of_quantities_than_the_targets_have(query_class):
    with pytest.raises(UsageError, match="predicts 1 quantities a sample, and the targets have 3"):
        asked_by(query_class(2), pool_of(targets=(3,)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@every_query
@pytest.mark.parametrize("sample", [7, 10], ids=["candidate", "labeled"])
def test_a_sample_without_a_distance_is_named(query_class, value, sample):
    pool = pool_of()
    pool._inputs[sample, 2] = value
    with pytest.raises(QueryError, match=rf"the features of sample {sample} are NaN or infinite"):
        asked_by(query_class(2, layer="inputs"), pool)


def test_a_prediction_or_target_without_a_distance_is_named():
    pool = pool_of()
    with pytest.raises(QueryError, match=r"the prediction of sample 7 is NaN or infinite"):
        asked_by(
            IGSQuery(2), pool, lambda x: torch.where(x[:, 0] == pool.inputs(torch.tensor([7]))[0, 0], torch.inf, 0.0)
        )
    pool._targets[10] = torch.nan
    with pytest.raises(QueryError, match=r"the target of sample 10 is NaN"):
        asked_by(GSyQuery(2), pool)


def test_parameters():
    for query_class in QUERIES:
        assert query_class().max_samples == 10
        with pytest.raises(UsageError, match="max_samples is -1"):
            query_class(-1)
        with pytest.raises(UsageError, match="candidates is 0"):
            query_class(candidates=0)
    with pytest.raises(UsageError, match="members is 0"):
        EMCMQuery(members=0)
    for ridge in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="ridge is"):
            EMCMQuery(ridge=ridge)


def test_plugin_offers_its_parts_by_name():
    import alcore_regression

    from alcore import plugins

    for name in ("gsx", "gsy", "igs", "variance", "emcm"):
        assert plugins.installed().make("query", name, max_samples=3).max_samples == 3
    assert all(hasattr(alcore_regression, name) for name in alcore_regression.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alcore_regression.nothing


# -- fields ------------------------------------------------------------------------------------------------------------


class Operator(torch.nn.Module):
    """Maps four numbers to a field of one channel, (B, 1, 5, 6), or without an axis of channels, (B, 5, 6)."""

    def __init__(self, *channels):
        super().__init__()
        self.channels, self.layer = channels, torch.nn.Linear(4, 30)

    def forward(self, inputs):
        return self.layer(inputs).reshape(-1, *self.channels, 5, 6)


class Simulation(BaseLabel):
    """Answers with a field."""

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            request = queue_to_label.get_request()
            row = self.driver.train_datapool.inputs(torch.tensor([request.item]))[0]
            serialize_queue.put(Label(request, row.sum() + torch.arange(30.0).reshape(5, 6) * row[0]))


def field_run(folder, query, learner):
    pool = TensorPool(draw(40, 4), info=DataInfo("regression"))
    for sample in range(6):
        pool.append(Label(sample, draw(5, 6, seed=sample)))
    held = TensorPool(draw(10, 4, seed=9), draw(10, 5, 6, seed=8), labeled=range(10))
    return Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=3, root_log_dir=folder, device="cpu", seed=3),
        learner,
        c.StrategiesConfig([query], queue.Queue, Simulation(), [RegressionMetrology()]),
        c.TrainingConfig(pool, 2, val_datapool=held, train_loop_fn=toy_loop),
    )


@every_query
def test_runs_whose_labels_are_fields(tmp_path, query_class):
    driver = field_run(tmp_path, query_class(3), Operator(1))
    driver.run()
    (metrology,) = driver.metrology_strategies
    assert [record["train_samples"] for record in metrology.records] == [6, 9, 12]
    assert driver.train_datapool.batch(torch.arange(15))[1].shape == (15, 5, 6)


def test_fields_without_channels_are_measured_and_refused_by_those_who_take_them_for_samples(tmp_path):
    driver = field_run(tmp_path / "random", RandomQuery(3), Operator())
    driver.run()
    assert len(driver.metrology_strategies[0].records) == 3
    driver = field_run(tmp_path / "igs", IGSQuery(3), Operator())
    with pytest.raises(UsageError, match=r"add one of channels: \(B, 1, H, W\)"):
        driver.run()
    assert not driver.log_dir.exists()
