"""Answers in files, as spreadsheets and programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alcore_labelers import read_answers

from alcore.errors import UsageError
from alcore.protocols import DataInfo, Failed, Label, Request

NUMBERS = DataInfo("regression", 0, 2, (2,), ())
ANIMALS = DataInfo("classification", 3, 2, (2,), ("cat", "Dog", "owl"))
DIGITS = DataInfo("classification", 2, 2, (2,), ("1", "7"))
CODES = DataInfo("classification", 3, 2, (2,), ())


def read(path: Path, content: str | bytes, info: DataInfo | None = NUMBERS) -> list[Any]:
    """Return the answers in a file, or why a row is none."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row.fault or row.answer for row in read_answers(path, info) if row.fault or row.answer]


def values(found: list[Any]) -> list[Any]:
    return [answer if isinstance(answer, str) else answer.value for answer in found]


@pytest.mark.parametrize(
    "content",
    [
        "request,sample,label\nab12,3,1.5\n",
        '\ufeffsample;Label ;notes;request\n\n;;;\n3;1,5;"a;b\nc";ab12\n',
        "sep=;\nsample;label;request\n3;1,5;ab12\n",
        "label\tsample\trequest\n1,5\t3\tab12\n".encode("utf-16"),
        "note,request,sample,label,,\nüber,ab12,3.0,1.50,,\n".encode("cp1252"),
        "request|label|sample\r\nab12|1.5|3\r\n",
    ],
)
def test_table_is_read_as_spreadsheets_save_it(tmp_path: Path, content: str | bytes) -> None:
    (found,) = read(tmp_path / "a.csv", content)
    assert (found.item, found.value, found.source, found.cost) == ("ab12", 1.5, "tell", None)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1.5", 1.5),
        ("-2", -2.0),
        ("\N{MINUS SIGN}3e-2", -0.03),
        ('"0,25"', 0.25),
        ('"[1, 2.5]"', [1.0, 2.5]),
        ('"1,234"', "'1,234' can be read in two ways; write the number with a decimal point"),
        ('"1.234,5"', "'1.234,5' has a point and a comma; write the number without separators of thousands"),
        ("1_000", "its label is '1_000', which is not a number"),
        ("#N/A", "its label is '#N/A', which is not a number"),
        ("nan", "its label is 'nan', which is not a number"),
    ],
)
def test_numbers_of_a_regression(tmp_path: Path, cell: str, value: Any) -> None:
    (found,) = values(read(tmp_path / "a.csv", f"sample,label\n3,{cell}\n"))
    assert (found.tolist() if isinstance(found, torch.Tensor) else found) == value


def test_point_among_decimal_commas_is_refused(tmp_path: Path) -> None:
    one, two, three = values(read(tmp_path / "a.csv", "sample;label\n1;3,5\n2;1.234\n3;12.5\n"))
    assert (one, three) == (3.5, 12.5)
    assert "can be read in two ways" in two


@pytest.mark.parametrize(
    ("info", "cell", "value"),
    [
        (ANIMALS, "owl", 2),
        (ANIMALS, " dog", 1),
        (ANIMALS, "2.0", 2),
        (ANIMALS, "bird", "bird"),
        (DIGITS, "7", 1),
        (DIGITS, '"7,0"', 1),
        (DIGITS, "0", "0 is not one of the classes, which are 1, 7"),
        (CODES, "2", 2),
        (None, "owl", "owl"),
        (None, "2", 2),
    ],
)
def test_classes_by_name_or_code(tmp_path: Path, info: DataInfo | None, cell: str, value: Any) -> None:
    assert values(read(tmp_path / "a.csv", f"sample,label\n3,{cell}\n", info)) == [value]


def test_status_cost_source_and_comment(tmp_path: Path) -> None:
    table = (
        "request,attempt,label,status,cost,source,comment\n"
        "aa,0,1,,0.5,ann,\nbb,1,,timeout,2,,too slow\ncc,0,,Withdrawn,,,\ndd,,,failed,,,\n"
        "ee,,1,timeout,,,\nff,,,lost,,,\ngg,,,ok,,,\nhh,,1,,much,,\nii,,,,,,\n,,1,,,,\n"
    )
    first, second, third, fourth, *faults = read(tmp_path / "a.csv", table)
    assert (first.value, first.cost, first.source, first.item.attempt) == (1.0, 0.5, "ann", 0)
    assert isinstance(second.item, Request)
    assert [(failed.kind, failed.reason, failed.cost) for failed in (second, third, fourth)] == [
        ("timeout", "too slow", 2.0),
        ("withdrawn", "", None),
        ("infrastructure", "", None),
    ]
    assert [fault.partition(";")[0] for fault in faults] == [
        "it has a label, and the status 'timeout'",
        "its status is 'lost'",
        "its status is 'ok', and it has no label",
        "its cost is 'much', which is not a number",
        "it names no request and no sample",
    ]


def test_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "sample,label\n3,1,5\n4,1,\n")[0] == (
        "it has 3 cells, the header has 2; quote a cell that holds ','"
    )


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"request": "aa", "sample": 3, "label": 1.5, "status": None, "shown": {"label": "x"}},
        {"request": "bb", "label": [[1, 2], [3, 4]]},
        {"request": "cc", "status": "infeasible", "comment": "diverged"},
        {"request": "dd", "label": None},
        {"sample": "x", "label": 1},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n\n[1]\n{"
    answers = read(tmp_path / "a.jsonl", text)
    assert isinstance(answers[0], Label)
    assert answers[1].value.tolist() == [[1, 2], [3, 4]]
    assert isinstance(answers[2], Failed)
    assert answers[3] == "its sample is 'x', which is not a whole number of at least 0"
    assert [fault[:11] for fault in answers[4:]] == ["it is not a", "it is not J"]
    assert [row.answer or row.fault for row in read_answers(tmp_path / "a.jsonl", NUMBERS)].count("") == 1


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    fields = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]], dtype=np.float32)
    np.savez(path, request=np.array(["aa", "bb", ""]), sample=np.array([3, 4, 5]), label=fields)
    given = read_answers(path, NUMBERS)
    assert [(row.sample, row.answer.item, row.answer.value.tolist()) for row in given if row.answer] == [
        (3, "aa", [1.0, 2.0]),
        (5, 5, [3.0, 4.0]),
    ]
    assert [row.fault for row in given if row.answer is None] == [""]
    np.savez(path, sample=np.array([3, 4]), label=np.array([1]))
    with pytest.raises(UsageError, match="its arrays have different lengths: sample 2, label 1"):
        read_answers(path, NUMBERS)
    np.savez(path, sample=np.array([3]), label=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="can't be read as arrays without pickle"):
        read_answers(path, NUMBERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "answers need a column request"),
        ("T;p\n1;2\n", "it has t;p."),
        ("request,label,Label\na,1,\n", "label is a column twice"),
        (b"PK\x03\x04xx", "save the sheet as CSV"),
    ],
)
def test_file_without_a_table_of_answers_is_an_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path / "a.csv", content)
