"""What a step did, as it is committed, told and logged."""

from __future__ import annotations

from alcore.driver.step_record import StepRecord


def test_new_record_has_done_nothing() -> None:
    record = StepRecord.begin(2, 9)
    assert record.step == 2
    assert record.values == {
        "step": 2, "train_samples": 9, "requested": 0, "labeled": 0, "failed": 0, "refused": 0,
    }  # fmt: skip
    assert (record.seconds, record.metrics) == ({}, {})
    assert record.of_training() == {}
    assert not record.settled


def test_records_share_nothing() -> None:
    one, other = StepRecord.begin(0, 1), StepRecord.begin(1, 1)
    one.values["requested"] = 5
    one.seconds["query"] = 1.0
    one.metrics["f1"] = [1]
    assert (other.values["requested"], other.seconds, other.metrics) == (0, {}, {})


def test_step_is_settled_by_a_label_or_a_failure_alone() -> None:
    for name, settled in (("labeled", True), ("failed", True), ("requested", False), ("refused", False)):
        record = StepRecord.begin(0, 1)
        record.values[name] = 1
        assert record.settled is settled


def test_training_part_has_epochs_and_losses_alone() -> None:
    record = StepRecord.begin(0, 1)
    record.values |= {"epochs": 3, "losses": {"loss": 0.5}}
    assert record.of_training() == {"epochs": 3, "losses": {"loss": 0.5}}


def test_observers_get_counts_metrics_and_seconds() -> None:
    record = StepRecord.begin(0, 1)
    record.metrics["f1"], record.seconds["query"] = [{"f1": 0.5}], 0.25
    assert record.for_observers() == {**record.values, "metrics": {"f1": [{"f1": 0.5}]}, "seconds": {"query": 0.25}}


def test_summary_has_losses_and_the_first_figures_of_each_metrology() -> None:
    record = StepRecord.begin(0, 9)
    record.values |= {"losses": {"loss": 0.123456}, "requested": 3, "labeled": 2}
    record.metrics |= {"f1": [{"step": 0, "on": "pool", "f1": 0.5}, {"f1": 0.75}], "plain": [1.5], "none": []}
    assert record.summary() == "9 training samples, loss 0.1235, f1 0.5, 3 requested, 2 labeled"
