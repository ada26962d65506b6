"""The metrics against scikit-learn's, and what a record says."""

import json
import logging
import math
import queue

import numpy as np
import pytest
import torch
from alcore_f1 import F1Metrology
from alcore_testing import rows_at_once
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from alcore import DataInfo, Driver, TensorPool, UsageError
from alcore import config as c
from alcore.store import Run


class Judged(TensorPool):
    """A pool that is measured as a whole; its inputs are the learner's outputs."""

    def evaluation(self):
        return self._inputs, self._targets


def make_driver(folder, pool, metrology, *, val=None, learner=None, steps=1, **options):
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu", seed=0
        ),
        learner or torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(pool, max_training_epochs=0, val_datapool=val),
        **options,
    )


def measure(metrology, outputs, targets, *, names=(), classes=0, learner=None):
    """The one record for these outputs; nothing is written to the disk."""
    targets = torch.as_tensor(targets)
    classes = classes or max(2, outputs.shape[-1] if outputs.dim() > 1 else 2)
    info = DataInfo("classification", classes=classes, names=names)
    driver = make_driver("not-made", Judged(outputs, targets, labeled=[0], info=info), metrology, learner=learner)
    metrology.check()
    metrology.compute()
    assert not driver.log_dir.exists()
    return metrology.records[-1]


def truth(size, classes):
    return st.lists(st.integers(0, classes - 1), min_size=size, max_size=size)


@st.composite
def predictions(draw, classes):
    """Predicted and true classes; with few samples some class is often missing in either."""
    size = draw(st.integers(1, 25))
    return np.array(draw(truth(size, classes))), np.array(draw(truth(size, classes)))


def check_binary(metrology, predicted, true):
    """Compare with scikit-learn for class 1, which the tests of the fault below rely on."""
    outputs = torch.from_numpy(predicted) * 4.0 - 2  # logits of -2 and 2
    record = measure(metrology, outputs[:, None], true)
    expected = precision_recall_fscore_support(
        true, predicted, labels=[0, 1], average="binary", pos_label=1, zero_division=0
    )
    for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert record[name] == pytest.approx(value, abs=1e-12), name
    assert record["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert record["samples"] == len(true)
    assert record["positive"] == "1"


@settings(deadline=None)
@given(predictions(2))
def test_two_classes(case):
    check_binary(F1Metrology(), *case)


@settings(deadline=None)
@given(predictions(2), st.sampled_from(["0", 0, "1", 1]))
def test_either_class_can_be_the_positive_one(case, positive):
    predicted, true = case
    record = measure(F1Metrology(positive), torch.from_numpy(predicted) * 2.0 - 1, true)
    expected = precision_recall_fscore_support(
        true, predicted, labels=[0, 1], average="binary", pos_label=int(positive), zero_division=0
    )
    assert [record["precision"], record["recall"], record["f1"]] == pytest.approx(expected[:3], abs=1e-12)
    assert record["positive"] == str(positive)


@settings(deadline=None)
@given(st.integers(3, 6).flatmap(lambda classes: st.tuples(st.just(classes), predictions(classes))))
def test_more_classes(case):
    classes, (predicted, true) = case
    labels = list(range(classes))
    record = measure(F1Metrology(), torch.eye(classes)[torch.from_numpy(predicted)], true)
    macro = precision_recall_fscore_support(true, predicted, labels=labels, average="macro", zero_division=0)
    assert [record["precision"], record["recall"], record["f1"]] == pytest.approx(macro[:3], abs=1e-12)
    assert record["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    each = precision_recall_fscore_support(true, predicted, labels=labels, average=None, zero_division=0)
    for number, one in enumerate(record["per_class"]):
        assert one["class"] == str(number)
        assert [one[name] for name in ("precision", "recall", "f1")] == pytest.approx([a[number] for a in each[:3]])
        assert one["samples"] == each[3][number]
    assert len(record["per_class"]) == classes
    assert "positive" not in record


def test_ten_thousand_classes_are_counted_without_a_matrix():
    true = np.arange(20_000) % 10_000
    logits = torch.nn.functional.one_hot(torch.from_numpy(true[:64]), 10_000).float()
    record = measure(F1Metrology(), logits, true[:64])
    assert (record["accuracy"], record["samples"]) == (1.0, 64)
    assert record["f1"] == pytest.approx(64 / 10_000)
    assert len(record["per_class"]) == 10_000


# -- the fault of the example this plugin replaces ---------------------------------------------------------------------


class MixedF1(F1Metrology):
    """A mutant with the fault of PhysicsNeMo's example: precision of class 1, recall of class 0, F1 of the two."""

    def _metrics(self, counts):
        metrics = super()._metrics(counts)
        (tn, _), (negative, _), _ = counts.tolist()
        fp = negative - tn
        recall = tn / (tn + fp) if tn + fp else 0.0
        precision = metrics["precision"]
        total = precision + recall
        return metrics | {"recall": recall, "f1": 2 * precision * recall / total if total else 0.0}


# 7 of class 0, of which 1 is missed; 3 of class 1, of which 2 are missed: every figure of the two classes differs
SKEWED = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0]), np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])


def test_precision_and_recall_are_of_one_class():
    predicted, true = SKEWED
    record = measure(F1Metrology(), torch.from_numpy(predicted) * 2.0 - 1, true)
    assert record["precision"] == pytest.approx(1 / 2)
    assert record["recall"] == pytest.approx(1 / 3)
    assert record["f1"] == pytest.approx(2 / 5)


def test_the_check_catches_the_known_fault():
    with pytest.raises(AssertionError, match="recall"):
        check_binary(MixedF1(), *SKEWED)


# -- outputs of every kind ---------------------------------------------------------------------------------------------


class Probabilities(torch.nn.Identity):
    outputs = "probabilities"


class Columns(torch.nn.Module):
    """Turns the last dimension but one of a sample, its draws, to the front: (K, B, C)."""

    def forward(self, inputs):
        return inputs.transpose(0, 1)


@pytest.mark.parametrize(
    ("outputs", "learner"),
    [
        (torch.tensor([-1.0, 0.5, 3, -2]), None),
        (torch.tensor([[-1.0], [0.5], [3], [-2]]), None),
        (torch.tensor([[2.0, 1], [-1, 0], [0, 5], [1, -1]]), None),
        (torch.tensor([0.2, 0.6, 0.9, 0.1]), Probabilities()),
        (torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]]), Probabilities()),
        (torch.tensor([[[9.0, 1], [0, 1]], [[0, 1], [0, 2]], [[0, 1], [0, 2]], [[1, 0], [1, 0]]]), Columns()),
        (torch.tensor([[[-9.0], [1]], [[1], [2]], [[1], [2]], [[-1], [-1]]]), Columns()),
    ],
    ids=["(B,)", "(B, 1)", "(B, C)", "(B,) probabilities", "(B, C) probabilities", "(K, B, C)", "(K, B, 1)"],
)
def test_predictions_of_each_shape(outputs, learner):
    record = measure(F1Metrology(), outputs, [0, 1, 0, 1], learner=learner, classes=2)  # all predict 0, 1, 1, 0
    assert record["precision"] == record["recall"] == record["f1"] == record["accuracy"] == 0.5
    assert measure(F1Metrology(), outputs, [0, 1, 1, 0], learner=learner, classes=2)["f1"] == 1


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("on", ["pool", "validation"])
def test_chunks_add_up_to_the_whole(tmp_path, rows, on):
    outputs = torch.randn(150, 4, generator=torch.Generator().manual_seed(1))
    pool = Judged(outputs, torch.randint(0, 4, (150,), generator=torch.Generator().manual_seed(2)), labeled=range(150))
    whole, parts = F1Metrology(), F1Metrology()
    make_driver(tmp_path, pool, whole, val=pool if on == "validation" else None)
    whole.compute()
    sizes = []
    make_driver(
        tmp_path, pool, parts, val=pool if on == "validation" else None,
        inference_fn=lambda learner, x: sizes.append(len(x)) or learner(x),
    )  # fmt: skip
    with rows_at_once(rows):
        parts.compute()
    assert parts.records == whole.records
    assert sizes == [*[rows] * (150 // rows), *([150 % rows] if 150 % rows else [])]
    assert whole.records[0]["on"] == on


# -- what a record says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["validation", "pool", "train"])
def test_records_say_what_was_measured(tmp_path, on, caplog):
    outputs, targets = torch.tensor([1.0, -1, 1, -1, 1, 1]), torch.tensor([1, 0, 1, 0, 0, 1])
    pool = (TensorPool if on == "train" else Judged)(outputs, targets, labeled=[0, 1, 2])
    val = TensorPool(outputs[3:], targets[3:], labeled=[0, 1]) if on == "validation" else None
    metrology = F1Metrology()
    driver = make_driver(tmp_path, pool, metrology, val=val)
    with caplog.at_level(logging.WARNING, "alcore"), driver.session():
        driver.active_learning_step()
        pool.append(4)
        driver.active_learning_step()
    assert [record["on"] for record in metrology.records] == [on, on]
    assert [record["train_samples"] for record in metrology.records] == [3, 4]
    assert [record["step"] for record in metrology.records] == [0, 1]
    assert [record["samples"] for record in metrology.records] == {
        "validation": [2, 2],
        "pool": [6, 6],
        "train": [3, 4],
    }[on]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    said = {
        "train": "labeled items themselves",
        "validation": "measures on 2 held-out samples, which are few",
        "pool": "measures on 6 samples of the pool, which are few",
    }
    assert len(warnings) == 1, "once for both steps"
    assert said[on] in warnings[0]


def test_the_records_of_a_run_and_its_export(tmp_path):
    pool = Judged(torch.tensor([1.0, -1, 1, -1]), torch.tensor([1, 0, 0, 1]), labeled=[0, 1])
    metrology = F1Metrology("1")
    driver = make_driver(tmp_path, pool, metrology, steps=3)
    driver.run()
    assert [list(record) for record in metrology.records] == [
        ["step", "train_samples", "on", "precision", "recall", "f1", "accuracy", "samples", "positive"]
    ] * 3
    assert [record["step"] for record in metrology.records] == [0, 1, 2]
    assert Run(driver.log_dir).records() == {"f1_metrology": metrology.records}
    assert json.loads((driver.log_dir / "f1_metrology.json").read_text()) == metrology.records


def test_records_can_be_written_to_any_file(tmp_path):
    metrology = F1Metrology()
    measure(metrology, torch.tensor([1.0, -1]), [1, 0])
    metrology.serialize_records(tmp_path / "mine.json")
    assert json.loads((tmp_path / "mine.json").read_text()) == metrology.records


def test_names_of_the_classes():
    outputs, true = torch.tensor([1.0, -1, 1, 1]), [1, 0, 0, 1]
    names = ("benign", "malignant")
    assert measure(F1Metrology(), outputs, true, names=names)["positive"] == "malignant"
    benign = measure(F1Metrology("benign"), outputs, true, names=names)
    assert benign["positive"] == "benign"
    assert (benign["precision"], benign["recall"]) == (1.0, 0.5)
    assert measure(F1Metrology(0), outputs, true, names=names) == benign  # by number
    assert measure(F1Metrology("0"), outputs, true, names=names) == benign  # as the command line gives it
    three = measure(F1Metrology(), torch.eye(3), [0, 1, 2], names=("a", "b"))
    assert [entry["class"] for entry in three["per_class"]] == ["a", "b", "2"]


def test_a_name_goes_before_a_number():
    record = measure(F1Metrology(1), torch.tensor([1.0, -1, 1]), [1, 0, 0], names=("1", "2"))
    assert record["positive"] == "1"
    assert (record["precision"], record["recall"]) == (1.0, 0.5)  # of the class named 1, whose number is 0


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([0, 1, 2, 1]), "classes 0 to 1"),
        (torch.tensor([0, -1, 1, 1]), "classes 0 to 1"),
        (torch.tensor([0, 0.5, 1, 1]), "classes 0 to 1"),
        (torch.tensor([0, math.nan, 1, 1]), "classes 0 to 1"),
        (torch.tensor([[0, 1], [1, 0], [1, 0], [0, 1]]), r"4 predictions for targets of shape \(4, 2\)"),
    ],
    ids=["too large", "negative", "fraction", "nan", "one-hot"],
)
def test_targets_that_are_no_classes(targets, words):
    with pytest.raises(UsageError, match=words):
        measure(F1Metrology(), torch.tensor([1.0, -1, 1, -1]), targets)


def test_targets_of_other_types_count():
    for dtype in (torch.float32, torch.bool, torch.uint8, torch.int32):
        assert measure(F1Metrology(), torch.tensor([1.0, -1, 1]), torch.tensor([1, 0, 1], dtype=dtype))["f1"] == 1
    assert measure(F1Metrology(), torch.tensor([1.0, -1]), torch.tensor([[1], [0]]))["f1"] == 1


def refused(folder, pool, metrology, words, **options):
    driver = make_driver(folder, pool, metrology, **options)
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()
    assert metrology.records == []


def test_regression_is_refused_before_step_0(tmp_path):
    refused(tmp_path, Judged(torch.zeros(4, 1), torch.rand(4), labeled=[0]), F1Metrology(), "is regression")


def test_outputs_of_no_classifier_are_refused_before_step_0(tmp_path):
    pool = Judged(torch.zeros(4, 1), torch.arange(4) % 2, labeled=[0])
    refused(tmp_path, pool, F1Metrology(), "inference_fn", inference_fn=lambda learner, x: [x])


@pytest.mark.parametrize(
    ("columns", "classes", "positive", "words"),
    [
        (1, 2, "malignent", "did you mean 'malignant'"),
        (1, 2, 2, "no class 2"),
        (3, 3, "malignant", "for two classes, and there are 3; leave it out"),
        (3, 2, "malignant", "for two classes, and there are 3; leave it out"),
    ],
)
def test_a_positive_class_that_does_not_exist(tmp_path, columns, classes, positive, words):
    info = DataInfo("classification", classes=classes, names=("benign", "malignant"))
    pool = Judged(torch.zeros(4, columns), torch.arange(4) % 2, labeled=[0], info=info)
    refused(tmp_path, pool, F1Metrology(positive), words)


def test_metrology_without_samples_is_refused(tmp_path):
    empty = TensorPool(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    metrology = F1Metrology()
    make_driver(tmp_path, empty, metrology, val=empty)
    with pytest.raises(UsageError, match="no sample to measure on"):
        metrology.compute()


def test_modes_of_the_learner_stay():
    learner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.BatchNorm1d(2))
    learner.train()
    learner[2].eval()
    statistics = learner[2].running_mean.clone()
    assert measure(F1Metrology(), torch.eye(2), [0, 1], learner=learner)["f1"] == 1  # no dropout
    assert [module.training for module in learner] == [True, True, False]
    assert torch.equal(learner[2].running_mean, statistics)


def test_plugin_offers_its_parts_by_name():
    from alcore import plugins

    made = plugins.installed().make("metrology", "f1", positive="0")
    assert type(made) is F1Metrology
    assert made.positive == "0"
