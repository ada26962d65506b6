"""Posterior variance, and Monte-Carlo dropout with masks that all samples share."""

import contextlib
import queue

import numpy as np
import pytest
import torch
from alcore_regression import VarianceQuery, posterior_variance
from alcore_testing import rows_at_once
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError


class Column(list):
    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = list(scores)


def make_driver(query, learner, inputs, *, labeled=(0,), targets=None, folder="not-made", **options):
    targets = torch.rand(len(inputs)) if targets is None else targets
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=1, skip_training=True, root_log_dir=folder, device="cpu", seed=0
        ),
        learner,
        c.StrategiesConfig([query], queue.Queue),
        c.TrainingConfig(TensorPool(inputs, targets, labeled=labeled), max_training_epochs=0),
        **options,
    )


def net(*layers, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(*(layer() for layer in layers))


def dropout_net(p=0.5):
    return net(
        lambda: torch.nn.Linear(3, 16), torch.nn.SiLU, lambda: torch.nn.Dropout(p), lambda: torch.nn.Linear(16, 1)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2**16))
def test_variance_of_a_posterior(draws, size, quantities, seed):
    shape = (draws, size, quantities) if quantities else (draws, size)
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    expected = samples.double().numpy().var(axis=0).reshape(size, max(quantities, 1)).sum(axis=1)
    np.testing.assert_allclose(posterior_variance(samples).numpy(), expected, rtol=1e-12, atol=1e-15)


def test_small_differences_of_large_values_are_kept():
    samples = torch.tensor([[1e6, 1e6], [1e6 + 0.0625, 1e6 + 0.125]])
    assert posterior_variance(samples).tolist() == [0.03125**2, 0.0625**2]


def test_an_ensemble_gives_its_own_posterior(tmp_path):
    samples = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    query = VarianceQuery(6)
    driver = make_driver(
        query, torch.nn.Identity(), samples, folder=tmp_path, inference_fn=lambda learner, x: learner(x).T[:, :, None]
    )
    driver.run()
    order = np.lexsort((np.arange(1, 40), -samples[1:].double().numpy().var(axis=1)))[:6] + 1
    assert [request.sample for request in driver.query_queue.asked] == order.tolist()


def by_hand(learner, inputs, masks):
    """What a dropout network predicts with masks that are given."""
    with torch.no_grad():
        hidden = learner[1](learner[0](inputs))
        return torch.stack([learner[3](hidden * mask) for mask in masks])


def test_a_pass_is_the_network_with_one_mask_of_the_run():
    learner, inputs = dropout_net(0.25).eval(), torch.randn(20, 3)
    query = VarianceQuery(5, draws=3)
    make_driver(query, learner, inputs)
    masks = [
        (torch.rand(1, 16, generator=query.generator(f"{draw} 2 1 [1, 16]")) >= 0.25).double() / 0.75
        for draw in range(3)
    ]
    assert torch.equal(query._posterior()(inputs), by_hand(learner, inputs, [mask.float() for mask in masks]))


def test_masks_are_the_same_for_any_number_of_draws():
    learner, inputs = dropout_net(), torch.randn(20, 3)
    few, many = VarianceQuery(5, draws=2), VarianceQuery(5, draws=6)
    for query in (few, many):
        make_driver(query, learner, inputs)
    assert torch.equal(few._posterior()(inputs), many._posterior()(inputs)[:2])


@pytest.mark.parametrize("rows", [1, 7, 32])
def test_scores_do_not_depend_on_the_chunks(rows):
    learner, inputs = dropout_net(), torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    expected, asked = Column(), Column()
    for column, context in ((expected, contextlib.nullcontext()), (asked, rows_at_once(rows))):
        query = VarianceQuery(10, draws=5)
        make_driver(query, learner, inputs)
        query.check()
        with context:
            query.sample(column)
    assert asked == expected
    np.testing.assert_allclose(asked.scores, expected.scores, rtol=1e-4)


@rows_at_once(128, least=1)
def test_the_more_draws_the_smaller_the_chunks():
    learner, most = dropout_net(), []
    learner.register_forward_pre_hook(lambda _module, given: most.append(len(given[0])))
    for draws in (4, 16):
        query = VarianceQuery(10, draws=draws)
        make_driver(query, learner, torch.randn(200, 3))
        most.clear()
        query.sample(Column())
        assert max(most) == 128 // draws


def test_duplicates_score_alike_and_go_by_id():
    row = torch.randn(1, 3, generator=torch.Generator().manual_seed(3))
    query, asked = VarianceQuery(8), Column()
    make_driver(query, dropout_net(), row.expand(30, 3).clone())
    query.sample(asked)
    assert asked == list(range(1, 9))
    assert len(set(asked.scores)) == 1
    assert asked.scores[0] > 0


def test_masks_are_those_of_seed_step_and_draw():
    learner, inputs = dropout_net(), torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    query = VarianceQuery(50)
    driver = make_driver(query, learner, inputs)
    rounds = []
    for step in (0, 0, 1):
        driver.position.step = step
        rounds.append(Column())
        query.sample(rounds[-1])
    assert rounds[0].scores == rounds[1].scores
    assert rounds[0].scores != rounds[2].scores
    mean = [np.mean(round_.scores) for round_ in rounds]
    assert mean[0] == pytest.approx(mean[2], rel=0.5)  # the same variance, estimated twice


def test_many_draws_come_near_the_variance_of_dropout():
    learner, inputs = dropout_net(), torch.randn(8, 3)
    query = VarianceQuery(8, draws=4000)
    make_driver(query, learner, inputs, labeled=())
    asked = Column()
    query.sample(asked)
    with torch.no_grad():
        hidden = learner[1](learner[0](inputs)).double()
        exact = (hidden * learner[3].weight[0]).square().sum(dim=1)  # var of a mask of p = 1/2 is 1
    np.testing.assert_allclose(asked.scores, exact[asked].numpy(), rtol=0.15)


def test_the_learner_and_the_global_generator_stay():
    learner = dropout_net()
    learner.train()
    learner[0].eval()  # a frozen layer
    before = [module.training for module in learner.modules()], torch.get_rng_state()
    query, asked = VarianceQuery(5), Column()
    make_driver(query, learner, torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), targets=torch.zeros(30))
    query.check()
    query.sample(asked)
    assert [module.training for module in learner.modules()] == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert not any(module._forward_hooks for module in learner.modules())


@pytest.mark.parametrize(
    ("learner", "options", "words"),
    [
        (torch.nn.Linear(3, 1), {}, r"Linear has no dropout.*learner\.mlp\.dropout=0\.1"),
        (dropout_net(p=0.0), {}, "no dropout"),
        (torch.nn.Linear(3, 1), {"inference_fn": lambda learner, x: learner(x)[None]}, "one sample of a posterior"),
        (torch.nn.Linear(3, 1), {"inference_fn": lambda learner, x: [x]}, "inference_fn"),
        (dropout_net(), {"targets": torch.arange(9) % 2}, "task of this data is classification"),
    ],
    ids=["no dropout", "p=0", "one sample", "list", "classes"],
)
def test_refused_before_step_0(tmp_path, learner, options, words):
    driver = make_driver(VarianceQuery(2), learner, torch.zeros(9, 3), folder=tmp_path, **options)
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()


def test_a_nan_is_an_error_that_names_the_sample(tmp_path):
    inputs = torch.zeros(40, 3)
    inputs[31] = torch.nan
    driver = make_driver(VarianceQuery(2), dropout_net(), inputs, folder=tmp_path)
    with pytest.raises(QueryError, match="sample 31 is NaN"):
        driver.run()


def test_an_empty_pool_and_more_than_there_are():
    for labeled, expected in [(range(6), []), (range(5), [5])]:
        query, asked = VarianceQuery(4), Column()
        make_driver(query, dropout_net(), torch.randn(6, 3), labeled=labeled)
        query.check()
        query.sample(asked)
        assert asked == expected


def test_parameters():
    assert (VarianceQuery().max_samples, VarianceQuery().draws) == (10, 20)
    with pytest.raises(UsageError, match="draws is 1"):
        VarianceQuery(draws=1)
    with pytest.raises(UsageError, match="max_samples is -1"):
        VarianceQuery(-1)
