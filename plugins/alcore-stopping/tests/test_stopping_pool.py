"""Criteria on what the learner says of the pool, and on what was bought."""

import itertools
import logging
import math
import queue

import pytest
import torch
from alcore_stopping import Budget, Confident, StabilizingPredictions
from alcore_testing import rows_at_once
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from alcore import Driver, Label, TensorPool, UsageError
from alcore import config as c
from alcore.errors import Interrupted
from alcore.protocols import Phase
from alcore.store import Run
from alcore.strategies import BaseLabel, BaseQuery


class First(BaseQuery):
    """Asks for the first candidates."""

    def __init__(self, max_samples=2):
        self.max_samples = max_samples

    def sample(self, query_queue, *args, **kwargs):
        for ids in self.driver.candidates():
            query_queue.put_many(ids[: self.wanted].tolist())
            return


class Known(BaseLabel):
    """Answers what it is asked; sample i costs i / 4. It can be cut off before an answer."""

    idempotent = True

    def __init__(self, cut_at=None):
        self.cut_at, self.answers = cut_at, 0

    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            self.answers += 1
            if self.answers == self.cut_at:
                raise Interrupted
            sample = queue_to_label.get()
            serialize_queue.put(Label(sample, sample % 3, cost=sample / 4))


class Table:
    """A learner whose outputs for each sample in each step stand in a table: (steps, samples, classes)."""

    def __init__(self, outputs):
        self.outputs = outputs

    def __call__(self, _learner, inputs):
        step = min(self.driver.active_learning_step_idx, len(self.outputs) - 1)
        return self.outputs[step][inputs[:, 0].long()]


def make_driver(folder, criterion, outputs, *, steps=None, label=None, query=None, targets=None, **options):
    table = Table(outputs)
    size = outputs.shape[1]
    targets = torch.arange(size) % 3 if targets is None else targets
    table.driver = Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu",
            seed=5, **options,
        ),
        torch.nn.Identity(),
        c.StrategiesConfig([query or First()], queue.Queue, label or Known()),
        c.TrainingConfig(TensorPool(torch.arange(size)[:, None].float(), targets, labeled=[0]), 0),
        inference_fn=table,
        plugins=[criterion],
    )  # fmt: skip
    return table.driver


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- the learner is sure -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    classes=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([1.0, 6.0, 30.0]),
    threshold=st.sampled_from([0.01, 0.1, 0.45, 1.0]),
    rows=st.sampled_from([1, 7, 4096]),
    seed=st.integers(0, 2**16),
)
def test_confident_stops_if_every_candidate_is_below_the_threshold(size, classes, scale, threshold, rows, seed):
    outputs = scale * draw(1, size, classes, seed=seed)
    driver = make_driver("not-made", Confident(threshold), outputs)
    driver.query_queue.put_many(range(0, size, 3))
    left = [outputs[0, i].double() for i in range(1, size) if i % 3]
    positive = [torch.softmax(torch.cat([torch.zeros(1), logits]) if classes == 1 else logits, 0) for logits in left]
    unsure = [1 - float(shares.max()) for shares in positive]
    with rows_at_once(rows):
        reason = Confident(threshold).alcore_should_stop(driver)
    assert (reason is not None) == (bool(left) and max(unsure) < threshold)
    if reason is not None:
        assert f"each of the {len(left)} unlabeled samples" in reason


def test_a_small_uncertainty_is_not_rounded_to_zero():
    driver = make_driver("not-made", Confident(), torch.tensor([[[40.0, 0.0, 0.0], [40.0, 0.0, 0.0]]]))
    reason = Confident().alcore_should_stop(driver)
    assert "the uncertainty is 8.5e-18 at most" in reason  # 2 exp(-40)


def test_a_run_ends_when_the_learner_is_sure(tmp_path):
    outputs = torch.tensor([0.1, 3.0, 5.0, 9.0])[:, None, None] * torch.tensor([[1.0], [-1.0]]).repeat(20, 1)
    driver = make_driver(tmp_path, Confident(0.02), outputs)
    driver.run()
    assert driver.active_learning_step_idx == 3
    assert driver.stop_reason == (
        "the learner is sure of each of the 35 unlabeled samples: the uncertainty is 0.00669 at most, below 0.02"
    )
    assert Run(driver.log_dir).meta()["reason"] == driver.stop_reason


@rows_at_once(32)
def test_the_pool_is_left_at_the_first_unsure_sample(monkeypatch):
    outputs = torch.full((1, 1000, 1), 30.0)
    outputs[0, 40] = 0
    driver = make_driver("not-made", Confident(), outputs)
    seen = []
    monkeypatch.setattr(driver, "infer", lambda x: seen.append(len(x)) or driver.inference_fn(None, x))
    assert Confident().alcore_should_stop(driver) is None
    assert seen == [32, 32]


def test_a_nan_is_not_sure():
    outputs = torch.full((1, 9, 3), math.nan)
    assert Confident(1.0).alcore_should_stop(make_driver("not-made", Confident(), outputs)) is None


# -- the predictions are stable ----------------------------------------------------------------------------------------


def mean_kappas(outputs, ids, window):
    """The mean of the last kappas after each step, None where there are too few."""
    classes = [output[ids].argmax(dim=1).numpy() for output in outputs]
    kappas = [cohen_kappa_score(*pair) for pair in itertools.pairwise(classes)]
    return [None if step < window else sum(kappas[step - window : step]) / window for step in range(len(outputs))]


def settling(steps=12, size=60, seed=1):
    """Outputs that change less and less."""
    noise = draw(steps, size, 3, seed=seed) * torch.tensor([4.0 / 2**step for step in range(steps)])[:, None, None]
    return draw(size, 3, seed=seed + 1) + noise


@pytest.mark.parametrize(("threshold", "window", "size"), [(0.9, 3, 2000), (0.99, 2, 2000), (0.8, 1, 20), (1.0, 3, 20)])
def test_a_run_ends_when_predictions_are_stable(tmp_path, threshold, window, size):
    criterion, outputs = StabilizingPredictions(threshold, window, size), settling()
    driver = make_driver(tmp_path, criterion, outputs, steps=12)
    driver.run()
    ids = criterion.state_dict()["ids"]
    assert len(ids) == min(size, 59)
    expected = mean_kappas(outputs, ids, window)
    step = next(step for step, mean in enumerate(expected) if mean is not None and mean >= threshold)
    assert driver.active_learning_step_idx == step + 1
    assert driver.stop_reason == (
        f"the predictions are stable: the mean kappa of the last {window} steps on {len(ids)} samples is "
        f"{expected[step]:.4f}, at least {threshold:g}"
    )


def test_the_stop_set_is_drawn_once_from_the_unlabeled_samples(tmp_path):
    sets = []
    for seed_of_others in (0, 1):
        torch.manual_seed(seed_of_others)
        criterion = StabilizingPredictions(size=15)
        driver = make_driver(tmp_path / str(seed_of_others), criterion, settling(), steps=3)
        with driver.session():
            for _ in range(3):
                driver.active_learning_step()
                sets.append(criterion.state_dict()["ids"].tolist())
    assert len({tuple(samples) for samples in sets}) == 1
    assert len(set(sets[0])) == 15
    assert 0 not in sets[0]
    assert sets[0] == sorted(sets[0])


def test_a_learner_that_knows_one_class_is_not_stable(tmp_path):
    driver = make_driver(tmp_path, StabilizingPredictions(0.5), torch.tensor([1.0, 0, 0]).expand(8, 30, 3), steps=8)
    driver.run()
    assert driver.stop_reason == "all 8 steps are done"


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "bought", "reason"),
    [
        ({"labels": 5}, 6, "6 labels were bought, and the budget is 5"),
        ({"labels": 6}, 6, "6 labels were bought, and the budget is 6"),
        ({"labels": 0}, 0, "0 labels were bought, and the budget is 0"),
        ({"cost": 0.0}, 0, "0 was paid for labels, and the budget is 0"),
        ({"cost": 0.76}, 4, "2.5 was paid for labels, and the budget is 0.76"),  # (1 + 2) / 4, then (3 + 4) / 4 more
        ({"cost": 2.5}, 4, "2.5 was paid for labels, and the budget is 2.5"),
        ({"labels": 100, "cost": 1.0}, 4, "2.5 was paid for labels, and the budget is 1"),
    ],
)
def test_a_run_ends_when_the_budget_is_spent(tmp_path, limits, bought, reason):
    driver = make_driver(tmp_path, Budget(**limits), draw(1, 30, 3))
    driver.run()
    assert driver.stop_reason == reason
    assert len(driver.train_datapool) == 1 + bought
    assert Run(driver.log_dir).summary().labels == bought


def test_a_corrected_label_is_bought_once(tmp_path):
    class Corrected(Known):
        def label(self, queue_to_label, serialize_queue, *args, **kwargs):
            while not queue_to_label.empty():
                sample = queue_to_label.get()
                for value, cost in [(0, 5.0), (1, 1.0)]:
                    serialize_queue.put(Label(sample, value, cost=cost))

    driver = make_driver(tmp_path, Budget(cost=4.0), draw(1, 30, 3), label=Corrected())
    driver.run()
    assert driver.stop_reason == "4 was paid for labels, and the budget is 4"
    assert len(driver.train_datapool) == 5


# -- all of them -------------------------------------------------------------------------------------------------------

STEPS = torch.arange(12)[:, None, None]
SURER = torch.nn.functional.one_hot(torch.arange(60) * 7 % 3, 3) * STEPS * 0.4
RUNS = {
    "stable": (lambda: StabilizingPredictions(0.95, 4, 25), settling()),
    "confident": (lambda: Confident(0.35), SURER),
    "labels": (lambda: Budget(labels=11), SURER),
    "cost": (lambda: Budget(cost=12.0), SURER),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tmp_path, name, caplog):
    make, outputs = RUNS[name]
    options = {"steps": 12, "checkpoint_interval": 2, "run_id": "a"}  # so that up to two steps are replayed
    whole = make_driver(tmp_path / "whole", make(), outputs, **options)
    whole.run()
    assert whole.stop_reason != "all 12 steps are done"
    asked = Run(whole.log_dir).requests()
    for cut_at in {1, len(asked) // 2, len(asked) - 3, len(asked)}:
        folder = tmp_path / str(cut_at)
        with pytest.raises(Interrupted):
            make_driver(folder, make(), outputs, label=Known(cut_at), **options).run()
        taken_up = make_driver(folder, make(), outputs, **options)
        with caplog.at_level(logging.WARNING, "alcore"):
            taken_up.restore()
            taken_up.run()
        ends = [(driver.stop_reason, driver.active_learning_step_idx) for driver in (taken_up, whole)]
        assert ends[0] == ends[1]
        assert Run(taken_up.log_dir).requests() == asked
        assert not [record for record in caplog.records if "otherwise" in record.message]
        last = [sorted((driver.log_dir / "ckpt").iterdir())[-1].read_bytes() for driver in (taken_up, whole)]
        assert last[0] == last[1]


def test_an_empty_pool_stops_nothing():
    for criterion in (Confident(1.0), StabilizingPredictions(0.1, 1)):
        driver = make_driver("not-made", criterion, torch.ones(1, 5, 3))
        driver.query_queue.put_many(range(5))
        assert criterion.alcore_should_stop(driver) is None


@pytest.mark.parametrize("criterion", [Confident(), StabilizingPredictions()])
def test_regression_is_refused_before_labels_are_bought(tmp_path, criterion):
    label = Known()
    driver = make_driver(tmp_path, criterion, torch.ones(1, 5, 1), targets=torch.rand(5), label=label)
    with pytest.raises(UsageError, match="the task of this data is regression"):
        driver.run()
    assert label.answers == 0


@pytest.mark.parametrize("criterion", [Confident(0.9), StabilizingPredictions()])
def test_the_learner_and_the_global_generator_stay(criterion):
    learner = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.5))
    driver = make_driver("not-made", criterion, torch.ones(1, 50, 3))
    driver.learner, driver.inference_fn = learner.train(), None
    before = torch.get_rng_state()
    criterion.alcore_should_stop(driver)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in learner.modules())
    assert driver.phase not in set(Phase)
