"""How a table says how its inputs were made, and makes those of a new file alike."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import alcore_tabular
import numpy as np
import pytest
import torch
from alcore_tabular import TableWarning, table

from alcore import UsageError

Rows = list[list[str]]
Write = Callable[..., Path]


def again(data: Any) -> Any:
    """Return the preprocessing of data, made again of its description as JSON."""
    text = json.dumps(data.preprocessing.describe(), allow_nan=False)
    return table.preprocessing_from(json.loads(text))  # type: ignore[attr-defined]


def whole(data: Any, total: int) -> torch.Tensor:
    """Return the inputs of all rows of the file."""
    inputs = torch.full((total, data.info.features), torch.nan)
    for pool in (data.train, data.val):
        inputs[pool.source_rows] = pool.inputs(torch.arange(pool.total))
    return inputs


def gappy(rows: Rows) -> Rows:
    return [
        rows[0],
        *([" " if k == 7 else row[0], "?" if k == 3 else row[1], row[2]] for k, row in enumerate(rows[1:])),
    ]


def test_restored_preprocessing_gives_inputs_of_the_run_bit_for_bit(rows: Rows, write: Write) -> None:
    path = write(gappy(rows))
    with pytest.warns(TableWarning):
        data = table(path, "bought", missing="fill")
    path.unlink()
    assert torch.equal(again(data).read(write(gappy(rows))), whole(data, 40))


def test_columns_stand_in_any_order_and_target_may_be_missing(rows: Rows, write: Write) -> None:
    data = table(write(rows), "bought")
    turned = write([[row[1], row[0]] for row in rows], "new.csv", delimiter=";")
    assert torch.equal(again(data).read(turned), whole(data, 40))


def test_constant_dropped_and_cost_columns_may_come_or_not(rows: Rows, write: Write) -> None:
    wide = [[*rows[0], "one", "id", "price"], *([*row, "1", f"x{k}", "2.5"] for k, row in enumerate(rows[1:]))]
    with pytest.warns(TableWarning, match="one"):
        data = table(write(wide), "bought", drop=("id",), cost="price")
    assert data.preprocessing is not None
    assert data.preprocessing.describe()["left_out"] == ["id", "price", "one"]
    for new in (wide, rows):
        assert torch.equal(again(data).read(write(new, "new.csv")), whole(data, 40))


def test_description_says_columns_and_classes_in_words(rows: Rows, write: Write) -> None:
    data = table(write(rows), "bought")
    assert data.preprocessing is not None
    description = data.preprocessing.describe()
    part = np.array([float(rows[1 + row][0]) for row in data.train.source_rows])
    size, colour = description["columns"]
    assert (size["name"], size["mean"], size["deviation"]) == ("size", part.mean(), part.std())
    assert colour == {"name": "colour", "kind": "category", "categories": ["blue", "green", "red"]}
    assert description["target"] == {"name": "bought", "task": "classification", "classes": ["no", "yes"]}


def test_samples_know_row_and_line_of_the_file(rows: Rows, write: Write) -> None:
    path = write(rows)
    path.write_text(path.read_text().replace("\n", "\n\n", 3))
    data = table(path, "bought")
    lines = path.read_text().split("\n")
    for pool in (data.train, data.val):
        for row, line in zip(pool.source_rows.tolist(), pool.source_lines.tolist(), strict=True):
            assert lines[line - 1].strip().split(",") == rows[1 + row]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: [["Size", *rows[0][1:]], *rows[1:]], r"missing: 'size'; .* 'Size' \(did you mean 'size'"),
        (lambda rows: [[*row, "x"] for row in rows], "not of the table that the model was trained on: 'x'"),
        (
            lambda rows: [rows[0], ["big", "red", "no"]],
            "'size' has text where the model needs numbers: line 2 has 'big'",
        ),
        (lambda rows: [rows[0], ["", "red", "no"]], "'size' has a missing value: line 2 is empty there"),
        (lambda rows: [rows[0], ["1e99", "red", "no"]], "'size' has a value that is infinite or too far"),
        (lambda rows: [["size", *rows[0]], *(["1", *row] for row in rows[1:])], "2 columns are named 'size'"),
        (lambda rows: rows[:1], "no row below"),
    ],
)
def test_file_that_does_not_fit_is_refused(rows: Rows, write: Write, change: Any, fault: str) -> None:
    data = table(write(rows), "bought")
    new = write(change(rows), "new.csv")
    with pytest.raises(UsageError, match=fault):
        again(data).read(new)
    if len(change(rows)) > 1:
        with pytest.raises(ValueError, match=r"size|x"):
            standalone(data)(data.preprocessing.describe(), new)  # type: ignore[union-attr]


def test_unknown_category_counts_as_none_with_a_warning(rows: Rows, write: Write) -> None:
    data = table(write(rows), "bought")
    with pytest.warns(TableWarning, match="in 1 of 1 rows, for instance 'pink'"):
        inputs = again(data).read(write([rows[0], ["40", "pink", "no"]], "new.csv"))
    assert inputs[0, 1:].tolist() == [0, 0, 0]


def test_npz_inputs_are_made_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 16, (60, 4, 4)).astype(np.uint8)
    images[:, 0, 0] = 0
    np.savez(tmp_path / "old.npz", X=images, y=np.arange(60) % 3)
    with pytest.warns(TableWarning):
        data = table(tmp_path / "old.npz")
    np.savez(tmp_path / "new.npz", X=images)
    assert torch.equal(again(data).read(tmp_path / "new.npz"), whole(data, 60))
    np.savez(tmp_path / "flat.npz", X=images.reshape(60, 16))
    with pytest.raises(UsageError, match=r"shape \('N', 4, 4\) are needed"):
        again(data).read(tmp_path / "flat.npz")
    with pytest.raises(UsageError, match="is not an NPZ file"):
        again(data).read(Path(__file__))


def test_later_format_is_refused(rows: Rows, write: Write) -> None:
    description = dict(table(write(rows), "bought").preprocessing.describe())  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="'alcore-table 99'"):
        table.preprocessing_from({**description, "format": "alcore-table 99"})  # type: ignore[attr-defined]


def standalone(data: Any) -> Callable[[Mapping[str, Any], Path], np.ndarray[Any, Any]]:
    """Return the function `read` of the module that needs NumPy alone."""
    names: dict[str, Any] = {"__name__": "standalone"}
    exec(compile(data.preprocessing.source(), "standalone.py", "exec"), names)
    read: Callable[[Mapping[str, Any], Path], np.ndarray[Any, Any]] = names["read"]
    return read


def test_standalone_module_gives_the_same_inputs_with_numpy_alone(rows: Rows, write: Write, tmp_path: Path) -> None:
    with pytest.warns(TableWarning):
        data = table(write(gappy(rows)), "bought", missing="fill")
    assert data.preprocessing is not None
    (tmp_path / "standalone.py").write_text(data.preprocessing.source())  # type: ignore[attr-defined]
    (tmp_path / "p.json").write_text(json.dumps(data.preprocessing.describe()))
    new = write([[row[1], row[0]] for row in gappy(rows)], "new.csv", delimiter=";")
    code = (
        "import sys, json; sys.modules['alcore'] = sys.modules['torch'] = None; import standalone, numpy; "
        f"numpy.save('inputs.npy', standalone.read(json.load(open('p.json')), {str(new)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert np.array_equal(np.load(tmp_path / "inputs.npy"), whole(data, 40).numpy())


def test_package_does_not_import_standalone_before_use() -> None:
    code = "import sys, alcore_tabular; assert 'numpy' not in sys.modules, sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert alcore_tabular.alcore_data()["csv"] == "alcore_tabular.data:table"


def test_decimal_comma_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(
            [["a", "b"], *([f"{k * k},5", "no" if k % 2 else "yes"] for k in range(40))]
        )
    data = table(path, "b", decimal=",")
    assert torch.equal(again(data).read(path), whole(data, 40))
