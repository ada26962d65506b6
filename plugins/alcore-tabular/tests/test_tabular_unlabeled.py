"""Tables some of whose rows have no label: they are samples to be labeled, by people for instance."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alcore_tabular import TableWarning, table
from alcore_testing import run_command

from alcore import Label
from alcore.errors import UsageError


def without_labels(rows: Any, labeled: int) -> Any:
    """Leave the labels of the first rows alone, and empty the others."""
    return [rows[0], *rows[1 : labeled + 1], *([*row[:2], ""] for row in rows[labeled + 1 :])]


def values(pool: Any) -> dict[int, Any]:
    """The labels by row of the file."""
    return {int(pool.source_rows[sample]): pool.answer(sample)[1].item() for sample in pool.labeled_ids.tolist()}


def test_rows_without_a_label_are_samples_whose_label_is_not_known(rows, write) -> None:
    data = table(write(without_labels(rows, 24)), target="bought", unlabeled="ask", seed=3)
    assert not data.train.knows_answers
    assert (data.train.total, len(data.train), len(data.val)) == (34, 18, 6)
    labels = values(data.train) | values(data.val)
    assert labels == {row: int(cell == "yes") for row, (_, _, cell) in enumerate(rows[1:25])}
    unlabeled = data.train.unlabeled_indices()
    assert data.train.source_rows[unlabeled].tolist() == list(range(24, 40))
    assert data.info.names == ("no", "yes")
    assert list(data.parts["label"]) == ["ask"]
    data.train.append(Label(int(unlabeled[0]), 1))
    assert values(data.train)[24] == 1


def test_inputs_are_those_of_the_file_whether_or_not_a_row_has_a_label(rows, write) -> None:
    some = table(write(without_labels(rows, 24), "some.csv"), target="bought", unlabeled="ask")
    raw = np.array([float(row[0]) for row in rows[1:]])[some.train.source_rows.numpy()]
    inputs = some.train.inputs(torch.arange(some.train.total))[:, 0].numpy()
    np.testing.assert_allclose(inputs, (raw - raw.mean()) / raw.std(), rtol=1e-4, atol=1e-5)


def test_a_whole_table_is_the_same_whatever_is_said_of_rows_without_a_label(rows, write) -> None:
    path = write(rows)
    digests = {table(path, target="bought", unlabeled=how).train.digest() for how in ("error", "drop", "ask")}
    assert len(digests) == 1


def test_rows_without_a_label_are_left_out_on_request(rows, write) -> None:
    with pytest.warns(TableWarning, match="16 of 40 rows were left out, since they have no label"):
        data = table(write(without_labels(rows, 24)), target="bought", unlabeled="drop")
    assert data.train.knows_answers
    assert data.train.total + data.val.total == 24


@pytest.mark.parametrize("missing", ["drop", "fill"])
def test_what_is_said_of_missing_values_is_for_inputs(rows, write, missing) -> None:
    given = without_labels(rows, 24)
    given[3][0] = given[40][0] = ""
    with pytest.warns(TableWarning, match="2 of 40 rows" if missing == "drop" else "2 missing values in 'size'"):
        data = table(write(given), target="bought", unlabeled="ask", missing=missing)
    assert data.train.total + data.val.total == (38 if missing == "drop" else 40)
    assert len(data.train.unlabeled_indices()) == (15 if missing == "drop" else 16)


def test_few_labels_are_all_trained_on(rows, write) -> None:
    data = table(write(without_labels(rows, 3)), target="bought", unlabeled="ask")
    assert data.val is None
    assert values(data.train) == {0: 0, 1: 1, 2: 0}
    assert "start" not in data.parts


@pytest.mark.parametrize(
    ("options", "task", "names"),
    [
        ({"classes": ("yes", "no", "perhaps")}, "classification", ("yes", "no", "perhaps")),
        ({"task": "regression"}, "regression", ()),
    ],
)
def test_nothing_need_be_labeled(rows, write, options, task, names) -> None:
    data = table(write(without_labels(rows, 0)), target="bought", unlabeled="ask", **options)
    assert (data.info.task, data.info.names, data.val, len(data.train)) == (task, names, None, 0)
    assert list(data.parts["start"]) == ["random"]


def test_classes_have_the_numbers_in_which_they_are_named(rows, write) -> None:
    data = table(write(rows), target="bought", classes=("yes", "maybe", "no"))
    assert data.info.names == ("yes", "maybe", "no")
    codes = values(data.val) | {row: 2 * (rows[row + 1][2] == "no") for row in values(data.train)}
    assert all(codes[row] == (0 if rows[row + 1][2] == "yes" else 2) for row in codes)
    numbers = [[*row[:2], ("3.0", "7")[row[2] == "yes"] if place else "bought"] for place, row in enumerate(rows)]
    assert set(values(table(write(numbers), target="bought", classes=("3", "7")).val).values()) == {0, 1}


def test_labels_that_are_numbers_keep_their_values(rows, write) -> None:
    given = [[*row[:2], f"{place / 7:.4f}" if 0 < place < 31 else row[2] if not place else ""]
             for place, row in enumerate(rows)]  # fmt: skip
    data = table(write(given), target="bought", unlabeled="ask")
    assert (data.info.task, len(data.val)) == ("regression", 8)
    assert values(data.train)[int(data.train.source_rows[data.train.labeled_ids[0]])] == pytest.approx(
        (int(data.train.source_rows[data.train.labeled_ids[0]]) + 1) / 7, abs=1e-4
    )


@pytest.mark.parametrize(("labeled", "task"), [(4, None), (8, None), (9, "classification"), (30, "classification")])
def test_few_whole_numbers_are_neither_classes_nor_quantities_by_themselves(rows, write, labeled, task) -> None:
    given = [[*row[:2], str(place % 3)] if place else row for place, row in enumerate(rows)]
    path = write(without_labels(given, labeled))
    if task is None:
        with pytest.raises(UsageError, match=f"its {labeled} labels are whole numbers, .*task=regression"):
            table(path, target="bought", unlabeled="ask")
    else:
        assert table(path, target="bought", unlabeled="ask").info.task == task


def test_a_class_whose_name_is_a_blank_elsewhere_is_a_class_if_it_is_named(rows, write) -> None:
    given = [[*row[:2], "none" if row[2] == "no" else row[2]] for row in rows]
    data = table(write(without_labels(given, 24)), target="bought", unlabeled="ask", classes=("none", "yes"))
    assert len(data.train) + len(data.val) == 24


def test_classes_that_metrics_say_nothing_of_are_named(rows, write) -> None:
    with pytest.warns(TableWarning, match="no labeled row of 'maybe' is held out"):
        table(write(without_labels(rows, 24)), target="bought", unlabeled="ask", classes=("yes", "no", "maybe"))


def test_arrays_have_rows_without_a_label_too(tmp_path: Path) -> None:
    y = np.where(np.arange(60) < 30, np.arange(60) % 2, np.nan)
    np.savez(tmp_path / "a.npz", X=np.random.default_rng(0).normal(size=(60, 3)), y=y)
    data = table(tmp_path / "a.npz", unlabeled="ask", task="classification")
    assert (len(data.train.unlabeled_indices()), data.info.names) == (30, ("0", "1"))
    assert data.train.source_lines is None


@pytest.mark.parametrize(
    ("labeled", "options", "fragments"),
    [
        (24, {}, ["'bought' has a missing value: line 26 is empty", "unlabeled=ask", "unlabeled=drop", "blanks"]),
        (24, {"unlabeled": "aks"}, ["unlabeled: 'aks'", "did you mean 'ask'"]),
        (24, {"unlabeled": "ask", "initial": 5}, ["initial: 5 is given", "16 rows have no label"]),
        (24, {"unlabeled": "drop", "drop": ("size", "colour")}, ["no column is left"]),
        (10, {"unlabeled": "drop"}, ["10 usable rows", "at least 20"]),
        (0, {}, ["is empty", "unlabeled=ask"]),
        (0, {"unlabeled": "ask"}, ["'bought' is the target and is empty", "data.csv.classes=", "task=regression"]),
        (1, {"unlabeled": "ask"}, ["'no' wherever it is not empty", "data.csv.classes="]),
        (
            24,
            {"unlabeled": "ask", "classes": ("yes", "nein")},
            ["line 2 has 'no'", "none of the classes 'yes', 'nein'"],
        ),
        (24, {"unlabeled": "ask", "classes": ("yes", "yes")}, ["'yes' is there twice"]),
        (24, {"unlabeled": "ask", "classes": ("yes",)}, ["'yes' alone"]),
        (24, {"unlabeled": "ask", "classes": "yes"}, ["not a list"]),
        (24, {"unlabeled": "ask", "classes": ("yes", "no", "")}, ["a name is empty"]),
        (24, {"classes": ("yes", "no"), "task": "regression", "unlabeled": "ask"}, ["a regression has none"]),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_remedy(rows, write, labeled, options, fragments) -> None:
    with pytest.raises(UsageError) as caught:
        table(write(without_labels(rows, labeled)), target="bought", **options)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("labeled", [0, 24])
def test_people_label_a_table_from_the_command_line(rows, write, tmp_path: Path, labeled: int) -> None:
    path = write(without_labels(rows, labeled))
    flags = ["--set", "data.csv.unlabeled=ask", "--set", "query.uq.max_samples=3"]
    flags += [] if labeled else ["--set", "data.csv.classes=['no', 'yes']", "--set", "start.random.max_samples=6"]
    flags += ["--query", "uq", *([] if labeled else ["--start", "random"])]
    words = ["run", str(path), "--target", "bought", *flags, "--steps", "3", "--run-id", "mine", "--quiet"]
    ran = run_command(tmp_path, *words)
    assert ran.code == 3, ran.err
    for _ in range(3):
        (tmp_path / "todo.csv").unlink(missing_ok=True)
        run_command(tmp_path, "ask", "mine", "--out", "todo.csv")
        with (tmp_path / "todo.csv").open(newline="") as file:
            asked = list(csv.DictReader(file))
        for row in asked:
            assert int(row["line"]) > labeled + 1
            row["label"] = rows[int(row["row"]) + 1][2]
        with (tmp_path / "done.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, asked[0])
            writer.writeheader()
            writer.writerows(asked)
        assert run_command(tmp_path, "tell", "mine", "done.csv").code == 0
        code = run_command(tmp_path, "resume", "mine", "--quiet").code
    assert code == 0
    shown = json.loads(run_command(tmp_path, "show", "mine", "--json").out)
    assert [step["labeled"] for step in shown["steps"]][:3] == ([3, 3, 3] if labeled else [6, 3, 3])
