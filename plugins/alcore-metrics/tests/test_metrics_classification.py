"""The figures of a classifier against scikit-learn and by hand, at the edges too."""

import json
import math
import queue

import numpy as np
import pytest
import torch
from alcore_metrics import ClassificationMetrology
from alcore_testing import rows_at_once
from sklearn import metrics as sk

from alcore import AlcoreError, DataInfo, Driver, Label, TensorPool, UsageError
from alcore import config as c
from alcore.store import Run


class Judged(TensorPool):
    """All of the pool is measured on."""

    def evaluation(self):
        return self._inputs, self._targets


class Probabilities(torch.nn.Identity):
    outputs = "probabilities"


def make_driver(metrology, pool, *, folder="not-made", steps=1, val=None, learner=None, **options):
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, skip_training=True, root_log_dir=folder, device="cpu",
            dtype=torch.float64, seed=0,
        ),
        learner or torch.nn.Identity(),
        c.StrategiesConfig([], queue.Queue, metrology_strategies=[metrology]),
        c.TrainingConfig(pool, max_training_epochs=0, val_datapool=val),
        **options,
    )  # fmt: skip


def measure(outputs, targets, *, names=(), learner=None, labeled=(0,), folder="not-made", **parameters):
    """The record for these outputs, which the learner passes through."""
    outputs, targets = (torch.as_tensor(values) for values in (outputs, targets))
    classes = max(2, outputs.shape[-1] if outputs.dim() > 1 else 2)
    info = DataInfo("classification", classes=classes, names=names)
    metrology = ClassificationMetrology(**parameters)
    make_driver(metrology, Judged(outputs, targets, labeled=labeled, info=info), learner=learner, folder=folder)
    metrology.check()
    metrology.compute()
    return metrology.records[-1]


def drawn(seed):
    """Logits with ties, and classes of which some are often missing."""
    draw = np.random.default_rng(seed)
    size, classes = draw.integers(1, 40), draw.integers(2, 6)
    logits = draw.normal(size=(8, classes))[draw.integers(0, 8, size)]
    return logits, draw.integers(0, draw.integers(1, classes + 1), size)


@pytest.mark.parametrize("seed", range(24))
def test_figures_are_those_of_scikit_learn(seed):
    logits, true = drawn(seed)
    with rows_at_once([1, 7, 4096][seed % 3]):
        record = measure(logits, true)
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    predicted, labels = logits.argmax(axis=1), np.arange(logits.shape[1])
    two = len(labels) == 2
    occurring = [label for label in labels if label in true]
    assert record["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    recalls = sk.recall_score(true, predicted, labels=occurring, average="macro", zero_division=0)
    assert record["balanced_accuracy"] == pytest.approx(recalls)
    assert record["log_loss"] == pytest.approx(sk.log_loss(true, probabilities, labels=labels))
    squares = (probabilities - np.eye(len(labels))[true]) ** 2
    assert record["brier"] == pytest.approx(squares.sum(axis=1).mean() / (2 if two else 1))
    assert record["confusion"] == sk.confusion_matrix(true, predicted, labels=labels).tolist()
    each = sk.precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0)
    for label, one in enumerate(record["per_class"]):
        assert [one[name] for name in ("precision", "recall", "f1", "samples")] == pytest.approx(
            [x[label] for x in each]
        )
    rankable = [label for label in occurring if (true != label).any()]
    for name, score in (("auroc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        expected = {
            label: score(true == label, probabilities[:, label].round(12)) for label in rankable
        }  # equal rows tie
        for label, one in enumerate(record["per_class"]):
            assert one[name] == pytest.approx(expected.get(label, math.nan), nan_ok=True)
        counted = [expected[label] for label in rankable if label or not two]
        assert record[name] == pytest.approx(np.mean(counted) if counted else math.nan, nan_ok=True)
    assert record["samples"] == len(true)


def test_macro_auroc_is_that_of_scikit_learn_where_all_classes_occur():
    generator = torch.Generator().manual_seed(3)
    logits, true = torch.randn(200, 4, generator=generator), torch.randint(0, 4, (200,), generator=generator)
    probabilities = logits.double().softmax(dim=1).numpy()
    expected = sk.roc_auc_score(true.numpy(), probabilities, multi_class="ovr", average="macro")
    assert measure(logits, true)["auroc"] == pytest.approx(expected)


@pytest.mark.parametrize("size", [13, 20, 34])
def test_equal_outputs_tie_at_any_place_of_a_chunk(size):
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(size, 4)
    record = measure(logits.contiguous(), torch.arange(size) % 4)
    assert [entry["auroc"] for entry in record["per_class"]] == [0.5] * 4


def test_certain_predictions_keep_their_order():
    logits = torch.tensor([40.0, 41, 42, 43], dtype=torch.float64)  # the probability of each is 1 in double precision
    assert measure(logits, [0, 0, 1, 1])["auroc"] == 1


# -- by hand -----------------------------------------------------------------------------------------------------------

THREE = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.2, 0.3]])


def test_a_class_that_is_absent_and_one_that_is_predicted_only():
    record = measure(THREE, [0, 0, 0, 0], learner=Probabilities())  # 1 is predicted only, 2 is nowhere
    assert record["accuracy"] == record["balanced_accuracy"] == 0.75
    assert record["confusion"] == [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    zero, one, two = record["per_class"]
    assert (zero["precision"], zero["recall"], zero["f1"], zero["samples"]) == (1, 0.75, pytest.approx(6 / 7), 4)
    assert (one["precision"], one["recall"], one["f1"], one["samples"]) == (0, 0, 0, 0)
    assert (two["precision"], two["recall"], two["f1"], two["samples"]) == (0, 0, 0, 0)
    assert all(math.isnan(each[name]) for each in (record, zero, one) for name in ("auroc", "average_precision"))


def test_absent_classes_do_not_count_in_means():
    record = measure(THREE, [0, 1, 1, 0], learner=Probabilities())
    assert record["balanced_accuracy"] == (1 + 0.5) / 2
    zero, one, two = record["per_class"]
    assert (zero["auroc"], one["auroc"]) == (3 / 4, 1)  # of class 0: 0.7 and 0.5 against 0.6 and 0.1
    assert math.isnan(two["auroc"])
    assert record["auroc"] == (3 / 4 + 1) / 2
    assert zero["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert record["average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_binary_figures_by_hand():
    record = measure(torch.tensor([[0.9], [0.6], [0.4], [0.2]]), [1, 0, 1, 0], learner=Probabilities())
    assert record["accuracy"] == record["balanced_accuracy"] == 0.5
    assert record["auroc"] == 3 / 4
    assert record["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert record["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.4) + math.log(0.8)) / 4)
    assert record["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04) / 4)
    assert record["confusion"] == [[1, 1], [1, 1]]


@pytest.mark.parametrize("learner", [None, Probabilities()], ids=["logits", "probabilities"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=str)
def test_one_column_is_two_classes(shape, learner):
    logits = torch.tensor([2.0, -1, 0.5, -3, 0], dtype=torch.float64)
    two = torch.stack([torch.zeros(5, dtype=torch.float64), logits], dim=1)
    outputs = logits if learner is None else logits.sigmoid()
    record = measure(outputs.reshape(shape), [1, 1, 0, 0, 1], learner=learner)
    both = measure(two, [1, 1, 0, 0, 1])
    assert record["confusion"] == [[1, 1], [1, 2]]  # a tie is class 1; of two columns it is the first
    for name in ("auroc", "average_precision", "log_loss", "brier"):
        assert record[name] == pytest.approx(both[name])


def test_posterior_samples_count_by_their_mean_probability():
    samples = torch.tensor([[[4.0, 0], [0, 1]], [[-1, 0], [0, 3]], [[0, 1], [0, 2]]], dtype=torch.float64)
    record = measure(samples.transpose(0, 1), [0, 1], learner=Transposed())
    p = samples.softmax(dim=2).mean(dim=0)
    assert record["log_loss"] == pytest.approx(-(math.log(p[0, 0]) + math.log(p[1, 1])) / 2)


class Transposed(torch.nn.Module):
    """Puts the second axis first."""

    def forward(self, inputs):
        return inputs.transpose(0, 1)


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        (1, abs(3 / 6 - 4.35 / 6)),
        (2, abs(3 / 6 - 4.35 / 6)),  # all above a half
        (4, (abs(1 - 1.85) + abs(2 - 2.5)) / 6),  # 0.75 belongs to the bin that ends there
        (10, (abs(1 - 1.1) + abs(2 - 2.35) + abs(0 - 0.9)) / 6),
        (20, (abs(1 - 1.1) + abs(0 - 0.75) + abs(2 - 1.6) + abs(0 - 0.9)) / 6),
    ],
)
def test_calibration_error_by_hand(bins, expected):
    confident = torch.tensor([0.55, 0.55, 0.75, 0.8, 0.8, 0.9], dtype=torch.float64)
    outputs = torch.stack([1 - confident, confident], dim=1)  # 1 is predicted
    record = measure(outputs, [1, 0, 0, 1, 1, 0], learner=Probabilities(), bins=bins)
    assert record["ece"] == pytest.approx(expected)


def test_perfect_and_certain():
    record = measure(torch.eye(3), [0, 1, 2], learner=Probabilities())
    assert [record[name] for name in ("accuracy", "auroc", "average_precision")] == [1, 1, 1]
    assert [record[name] for name in ("log_loss", "brier", "ece")] == pytest.approx([0, 0, 0])
    wrong = measure(torch.eye(3), [1, 2, 0], learner=Probabilities())
    assert (wrong["accuracy"], wrong["brier"], wrong["ece"]) == (0, 2, 1)
    assert wrong["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps))


# -- classes, groups, many samples -------------------------------------------------------------------------------------


def test_classes_have_their_names():
    record = measure(THREE, [0, 1, 1, 0], learner=Probabilities(), names=("cat", "dog"))
    assert [entry["class"] for entry in record["per_class"]] == ["cat", "dog", "2"]


def test_many_classes_have_no_matrix():
    logits = torch.eye(101)
    record = measure(logits, torch.arange(101).flip(0))
    assert "confusion" not in record
    assert record["accuracy"] == pytest.approx(1 / 101)
    assert [entry["class"] for entry in record["per_class"] if entry["f1"]] == ["50"]
    assert len(measure(torch.eye(100), torch.arange(100))["confusion"]) == 100


@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_groups_are_measured_by_themselves(rows):
    generator = torch.Generator().manual_seed(1)
    logits, true = torch.randn(60, 3, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    side = {sample: ("b" if sample % 4 else "a") for sample in range(60)}
    with rows_at_once(rows):
        record = measure(logits, true, groups=side)
    assert [entry["group"] for entry in record["per_group"]] == ["a", "b"]
    for entry in record["per_group"]:
        of_group = [sample for sample in range(60) if side[sample] == entry["group"]]
        alone = measure(logits[of_group], true[of_group])
        assert entry == {"group": entry["group"]} | {
            name: pytest.approx(alone[name]) for name in entry if name != "group"
        }
    assert [entry["samples"] for entry in record["per_group"]] == [15, 45]


class WithColumns(Judged):
    columns = {"sex": ["f", "m", "f", "m"], "age": np.array([20, 20, 30, 30])}  # noqa: RUF012


@pytest.mark.parametrize(("name", "expected"), [("sex", [("f", 1), ("m", 0.5)]), ("age", [("20", 1), ("30", 0.5)])])
def test_groups_by_a_column_of_the_pool(name, expected):
    metrology = ClassificationMetrology(groups=name)
    make_driver(metrology, WithColumns(torch.tensor([1.0, -1, 1, 1]), torch.tensor([1, 0, 1, 0]), labeled=[0]))
    metrology.check()
    metrology.compute()
    assert [(record["group"], record["accuracy"]) for record in metrology.records[0]["per_group"]] == expected


@pytest.mark.parametrize("on", ["validation", "train", "unlabeled"])
def test_groups_go_by_the_ids_of_the_pool_that_is_measured_on(tmp_path, on):
    outputs, true = torch.tensor([1.0, -1, 1, -1, 1, 1]), torch.tensor([1, 1, 0, 0, 1, 0])
    held = TensorPool(outputs, true, labeled=[5, 1])
    metrology = ClassificationMetrology(on, groups={sample: f"of {sample}" for sample in range(6)})
    make_driver(metrology, TensorPool(outputs, true, labeled=[4, 2, 0]), val=held, folder=tmp_path).run()
    accuracies = {record["group"]: record["accuracy"] for record in metrology.records[0]["per_group"]}
    expected = {"validation": [1, 5], "train": [0, 2, 4], "unlabeled": [1, 3, 5]}[on]
    assert accuracies == {f"of {sample}": float((outputs[sample] > 0) == true[sample]) for sample in expected}


def test_ranking_of_more_samples_than_fit_is_that_of_a_random_part():
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(4000) % 2  # in turns, which a part of every second sample would not survive
    logits = true + torch.randn(4000, generator=generator, dtype=torch.float64)
    whole = measure(logits, true)
    assert "ranked_samples" not in whole
    parts = []
    for rows in (64, 4096):
        with rows_at_once(rows):
            part = measure(logits, true, max_scores=2000)
        assert part["ranked_samples"] == 1000
        assert part["auroc"] == pytest.approx(whole["auroc"], abs=0.05)
        assert part["auroc"] != whole["auroc"]
        assert part["accuracy"] == whole["accuracy"]
        parts.append((part["auroc"], part["average_precision"]))
    assert parts[0] == parts[1]  # the same samples, whatever the chunks
    none = measure(logits, true, max_scores=0)
    assert not {"auroc", "average_precision", "ranked_samples"} & {*none, *none["per_class"][0]}


def test_samples_may_be_in_no_group(caplog):
    outputs, true = torch.tensor([1.0, 1, -1, 1]), [1, 0, 0, 1]
    record = measure(outputs, true, groups={0: "a", 1: None, 2: "a"})
    assert [(entry["group"], entry["samples"], entry["accuracy"]) for entry in record["per_group"]] == [("a", 2, 1)]
    assert record["samples"] == 4
    assert "group" not in caplog.text
    assert measure(outputs, true, groups={7: "a"})["per_group"] == []
    assert "no sample that is measured on (pool) is in a group" in caplog.text


# -- where it measures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "said", "expected"),
    [(None, "validation", 2), ("validation", "validation", 2), ("train", "train", 3), ("unlabeled", "unlabeled", 4),
     ("pool", "pool", 7)],
)  # fmt: skip
def test_records_say_what_was_measured(tmp_path, on, said, expected):
    outputs, true = torch.tensor([1.0, -1, 1, -1, 1, 1, 1]), torch.tensor([1, 1, 0, 0, 1, 0, 1])
    metrology = ClassificationMetrology(on)
    held = TensorPool(outputs, true, labeled=[0, 1])
    driver = make_driver(metrology, Judged(outputs, true, labeled=[0, 1, 6]), val=held, folder=tmp_path)
    driver.run()
    (record,) = metrology.records
    measured = {"validation": [0, 1], "train": [0, 1, 6], "unlabeled": [2, 3, 4, 5], "pool": range(7)}[said]
    assert (record["on"], record["samples"]) == (said, expected)
    assert record["accuracy"] == np.mean([float((outputs[i] > 0) == true[i]) for i in measured])
    exported = json.loads((driver.log_dir / "classification_metrology.json").read_text())
    assert repr(Run(driver.log_dir).records()["classification_metrology"]) == repr(metrology.records)  # with NaN
    assert [list(exported_record) for exported_record in exported] == [list(record)]
    assert exported[0]["confusion"] == record["confusion"]


def test_no_unlabeled_samples_are_a_record_of_none(tmp_path):
    metrology = ClassificationMetrology("unlabeled")
    pool = TensorPool(torch.tensor([1.0, -1]), torch.tensor([1, 0]), labeled=[0, 1])
    make_driver(metrology, pool, folder=tmp_path).run()
    assert metrology.records == [{"step": 0, "train_samples": 2, "on": "unlabeled", "samples": 0}]


def test_no_held_out_samples_are_refused_where_they_are_asked_for():
    pool = TensorPool(torch.zeros(4), torch.arange(4) % 2, labeled=[0])
    metrology = ClassificationMetrology("validation")
    make_driver(metrology, pool, val=TensorPool(torch.zeros(4), torch.arange(4) % 2))
    with pytest.raises(UsageError, match="no sample to measure on"):
        metrology.compute()


# -- what it refuses ---------------------------------------------------------------------------------------------------


def test_nan_outputs_are_an_error_that_names_the_first_sample():
    outputs = torch.zeros(9, 2)
    outputs[5, 1] = torch.nan
    outputs[7, 0] = torch.nan
    with (
        rows_at_once(4),
        pytest.raises(AlcoreError, match=r"for 2 of 4 samples are NaN.*position 5.*\(pool\)") as error,
    ):
        measure(outputs, torch.arange(9) % 2)
    assert error.value.exit_code == 1


def test_a_logit_of_minus_infinity_is_a_probability_of_0():
    record = measure(torch.tensor([[0.0, 0, -torch.inf], [0, 0, -torch.inf]]), [0, 1])
    assert record["log_loss"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("row", [[0.5, 0.9], [1.5, -0.5], [3.0, 4.0], [0.0, 0.0]], ids=str)
def test_probabilities_that_are_none_are_refused(row):
    with pytest.raises(
        UsageError, match=r"at position 1 .*\(pool\) are not.*Leave the learner's attribute `outputs` out"
    ):
        measure(torch.tensor([[0.5, 0.5], row]), [0, 1], learner=Probabilities())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_low_precision_are_taken(dtype):
    outputs = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    true = torch.arange(20)
    exact, rounded = (
        measure(values, true, learner=Probabilities()) for values in (outputs, outputs.to(dtype).double())
    )
    assert rounded["log_loss"] == pytest.approx(exact["log_loss"], rel=0.01)


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
def test_targets_that_are_no_classes_are_refused(targets, words):
    with pytest.raises(UsageError, match=words):
        measure(torch.tensor([1.0, -1, 1, -1]), targets)


CLASSES = DataInfo("classification", classes=2)


@pytest.mark.parametrize(
    ("parameters", "info", "words"),
    [
        ({}, DataInfo("regression"), "--metrology regression"),
        ({}, DataInfo("classification", classes=3), r"\(2, 2\), which is about 2 classes, and the data has 3"),
        ({"on": "validation"}, CLASSES, "no validation pool"),
        ({"on": "pool"}, CLASSES, r"no evaluation\(\)"),
        ({"groups": "sex"}, CLASSES, "TensorPool, has no columns"),
    ],
    ids=["regression", "fewer columns", "no validation pool", "no evaluation", "no columns"],
)
def test_what_can_not_be_measured_is_refused_before_step_0(tmp_path, parameters, info, words):
    targets = torch.arange(4) % 2 if info.task == "classification" else torch.rand(4)
    pool = TensorPool(torch.zeros(4, 2), targets, labeled=[0], info=info)
    driver = make_driver(ClassificationMetrology(**parameters), pool, folder=tmp_path)
    with pytest.raises(UsageError, match=words):
        driver.run()
    assert not driver.log_dir.exists()


def test_unlabeled_samples_whose_answers_nobody_knows_are_refused(tmp_path):
    pool = TensorPool(torch.zeros(4, 2), info=CLASSES)
    pool.append(Label(0, 1))
    driver = make_driver(ClassificationMetrology("unlabeled"), pool, folder=tmp_path)
    with pytest.raises(UsageError, match="doesn't know the answers"):
        driver.run()


def test_groups_that_are_unknown_are_refused():
    metrology = ClassificationMetrology(groups="sx")
    make_driver(metrology, WithColumns(torch.zeros(4), torch.arange(4) % 2, labeled=[0]))
    with pytest.raises(UsageError, match=r"is no column: did you mean 'sex'"):
        metrology.check()
    with pytest.raises(UsageError, match="more than 100 different groups"):
        measure(torch.zeros(101), torch.zeros(101).long(), groups={i: str(i) for i in range(101)})


@pytest.mark.parametrize("parameters", [{"bins": 0}, {"max_scores": -1}], ids=str)
def test_parameters_out_of_range_are_refused(parameters):
    (name,) = parameters
    with pytest.raises(UsageError, match=f"{name} is"):
        ClassificationMetrology(**parameters)
