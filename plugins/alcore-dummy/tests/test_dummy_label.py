"""Sample ids go through; anything else the pool can't answer."""

import queue

import pytest
import torch
from alcore_dummy import DummyLabelStrategy

from alcore import BaseQuery, Driver, Failed, TensorPool, UsageError
from alcore import config as c
from alcore.store import Run


class AskFor(BaseQuery):
    """Asks for what it was given, one list a step."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.steps.pop(0))


def make_driver(folder, pool, *steps, unlabeled=None, **settings):
    return Driver(
        c.DriverConfig(
            batch_size=4, max_active_learning_steps=len(steps), skip_training=True, root_log_dir=folder, device="cpu",
            seed=0, **settings,
        ),
        torch.nn.Identity(),
        c.StrategiesConfig([AskFor(*steps)], queue.Queue, DummyLabelStrategy(), unlabeled_datapool=unlabeled),
        c.TrainingConfig(pool, max_training_epochs=0),
    )  # fmt: skip


def ten(**options):
    return TensorPool(torch.arange(10.0)[:, None], torch.arange(10) % 3, **options)


def test_labels_arrive_in_the_order_of_the_requests(tmp_path):
    pool = ten(labeled=[4])
    driver = make_driver(tmp_path, pool, [7, 2, 9], [0, 8])
    driver.run()
    assert pool.labeled_ids.tolist() == [4, 7, 2, 9, 0, 8]
    assert [int(pool[position][1]) for position in range(6)] == [1, 1, 2, 0, 0, 2]
    requests = Run(driver.log_dir).requests()
    assert [(request["step"], request["sample"], request["state"], request["kind"]) for request in requests] == [
        (0, 7, "labeled", "id"), (0, 2, "labeled", "id"), (0, 9, "labeled", "id"),
        (1, 0, "labeled", "id"), (1, 8, "labeled", "id"),
    ]  # fmt: skip


def test_a_queue_of_another_order_changes_nothing(tmp_path):
    pool = ten(labeled=[4])
    driver = make_driver(tmp_path, pool, [7, 2, 9])
    driver.query_queue._transport = queue.LifoQueue()
    driver.run()
    assert pool.labeled_ids.tolist() == [4, 7, 2, 9]


def test_generated_inputs_fail_and_the_others_are_labeled(tmp_path):
    pool = ten(labeled=[4])
    driver = make_driver(tmp_path, pool, [7, torch.tensor([0.5]), 2, torch.tensor([1.5])])
    driver.run()
    assert pool.labeled_ids.tolist() == [4, 7, 2]
    run = Run(driver.log_dir)
    assert [request["state"] for request in run.requests()] == ["labeled", "failed", "labeled", "failed"]
    assert [refusal["reason"] for refusal in run.refused()] == [
        "the pool knows the answers of its own samples alone"
    ] * 2
    assert run.steps()[0]["failed"] == 2


def test_generated_inputs_are_answered_with_failed():
    requests, answers = queue.Queue(), []
    for item in (3, drawn := torch.tensor([0.5]), 1):
        requests.put(item)
    taker = type("Taker", (), {"put_many": answers.extend})
    DummyLabelStrategy().label(requests, taker)
    assert requests.empty()
    assert answers[0] == 3
    assert answers[2] == 1
    assert isinstance(answers[1], Failed)
    assert answers[1].item is drawn


def test_a_retry_in_the_next_step_fails_again(tmp_path):
    pool = ten(labeled=[4])
    driver = make_driver(tmp_path, pool, [torch.tensor([0.5]), 6], [5], label_retries=1)
    driver.run()
    assert pool.labeled_ids.tolist() == [4, 6, 5]
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["failed", "labeled", "labeled"]


def test_another_pool_of_choice_gives_the_whole_item(tmp_path):
    pool = TensorPool(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), labeled=[0])
    make_driver(tmp_path, pool, [5, 3], unlabeled=ten()).run()
    inputs, targets = pool.batch(torch.arange(3))
    assert inputs.flatten().tolist() == [0, 5, 3]
    assert targets.tolist() == [0, 2, 0]


@pytest.mark.parametrize("separate", [False, True], ids=["training pool", "pool of choice"])
def test_a_pool_without_answers_is_refused_before_step_0(tmp_path, separate):
    blind = TensorPool(torch.zeros(10, 1), labeled=None if separate else [0])
    pool = ten(labeled=[4]) if separate else blind
    driver = make_driver(tmp_path, pool, [3], unlabeled=blind if separate else None)
    with pytest.raises(
        UsageError, match=r"DummyLabelStrategy .* TensorPool doesn't know.*Label\(id, value\), .*or give"
    ):
        driver.run()
    assert not driver.log_dir.exists()
    assert driver.query_strategies[0].steps == [[3]]  # nothing was asked for


def test_label_strategy_is_not_called_if_labeling_is_skipped(tmp_path):
    pool = ten(labeled=[4])
    driver = make_driver(tmp_path, pool, [3], skip_labeling=True)
    driver.run()
    assert pool.labeled_ids.tolist() == [4]
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["open"]


def test_plugin_offers_its_parts_by_name():
    from alcore import plugins

    assert type(plugins.installed().make("label", "dummy")) is DummyLabelStrategy
