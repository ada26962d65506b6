"""The metrology strategies of alcore-metrics on two ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alcore.store.reading import Run


def test_ranks_measure_what_one_process_measures(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "measuring.py"
    script.write_text(MEASURING)
    found: list[Any] = []
    for ranks in (1, 2):
        processes = start(ranks, script, f"on-{ranks}").wait()
        assert processes.codes == [0] * ranks, "\n".join(processes.texts)
        assert all("batches of this rank: 0" not in text for text in processes.texts)
        runs = [Run(tmp_path / f"{task}-on-{ranks}") for task in ("classification", "regression")]
        found.append([run.records() for run in runs])
    assert repr(found[0]) == repr(found[1])
    classification, regression = found[0]
    assert [len(records) for records in classification.values()] == [2, 2]
    assert [records[1]["samples"] for records in classification.values()] == [9000, 8987]
    assert [records[1]["on"] for records in classification.values()] == ["pool", "unlabeled"]
    assert len(classification["classification_metrology"][0]["per_group"]) == 7
    assert list(regression) == ["fields_metrology", "regression_metrology"]
    assert regression["fields_metrology"][0]["samples"] == 9000


MEASURING = """
import queue, sys, torch
from alcore import DistributedManager, Driver, TensorPool, config as c
from alcore_dummy import DummyLabelStrategy
from alcore_metrics import ClassificationMetrology, FieldsMetrology, RegressionMetrology
from alcore_random import RandomQuery

manager = DistributedManager()
generator = torch.Generator().manual_seed(1)
inputs = torch.randn(9000, 3, generator=generator)
calls = []

class Pool(TensorPool):
    def evaluation(self):
        return inputs, self._targets

def infer(learner, x):
    calls.append(len(x))
    outputs = learner(x)
    return outputs[:, :4].reshape(-1, 2, 1, 2) if fields else outputs

for fields in (False, True):
    torch.manual_seed(4)
    targets = torch.randn(9000, 2, 1, 2, generator=generator) if fields else inputs.argmax(1)
    metrology = [RegressionMetrology(), FieldsMetrology()] if fields else [
        ClassificationMetrology(groups={i: f"{i % 7}" for i in range(9000)}, max_scores=6000),
        ClassificationMetrology("unlabeled"),
    ]
    name = ("regression" if fields else "classification") + "-" + sys.argv[1]
    Driver(
        c.DriverConfig(
            4, max_active_learning_steps=2, seed=2, dist_manager=manager, skip_training=True, run_id=name,
            root_log_dir=".",
        ),
        torch.nn.Linear(3, 5),
        c.StrategiesConfig([RandomQuery(3)], queue.Queue, DummyLabelStrategy(), metrology),
        c.TrainingConfig(Pool(inputs, targets, labeled=range(10)), 0),
        inference_fn=infer,
    ).run()
print("batches of this rank:", sum(size > 100 for size in calls))
"""
