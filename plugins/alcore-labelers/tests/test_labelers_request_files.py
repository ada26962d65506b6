"""Open requests as files to fill in."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alcore_labelers import requests_as_csv, write_requests

from alcore.experiment import OpenRequest
from alcore.protocols import Request


def asked(sample: int | None = 3, **more: Any) -> OpenRequest:
    known: dict[str, Any] = {"strategy": "uq", "score": 0.5, "rank": 0, "cost": 2.0} | more
    return OpenRequest(Request("ab" * 16, 1, 0, sample, 0), sample, **known)


def rows(requests: list[OpenRequest]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(requests_as_csv(requests))))


def test_table_shows_columns_of_the_file_or_inputs_and_why() -> None:
    first, second = rows(
        [asked(shown={"text": "a, b", "label": "old"}, row=4, line=6), asked(None, input=torch.tensor([0.1, 2.0]))]
    )
    assert list(first) == [
        *("request", "sample", "row", "line", "label", "text", "data.label", "x0", "x1"),
        *("step", "attempt", "strategy", "score", "rank", "expected_cost", "status", "cost", "source", "comment"),
    ]
    assert (first["text"], first["data.label"], first["label"], first["line"]) == ("a, b", "old", "", "6")
    assert (second["sample"], second["x0"], second["x1"], second["expected_cost"]) == ("", "0.1", "2.0", "2.0")


def test_text_is_no_formula_in_a_spreadsheet() -> None:
    (found,) = rows([asked(shown={"a": "=1+1", "b": "-2.5", "c": "@x", "d": "x=1"})])
    assert [found[name] for name in "abcd"] == ["'=1+1", "-2.5", "'@x", "x=1"]


def test_inputs_of_many_numbers_are_not_in_the_table() -> None:
    (found,) = rows([asked(input=torch.zeros(3, 32, 32))])
    assert found["input"].startswith("3 x 32 x 32 numbers")
    (found,) = rows([asked(input={"a": torch.tensor([1]), "b": "x"})])
    assert json.loads(found["input"]) == {"a": [1], "b": "x"}


def test_file_has_a_byte_order_mark_where_spreadsheets_need_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_requests([asked(shown={"a": "x"})], path)
    assert path.read_bytes()[:7] == b"request"
    write_requests([asked(shown={"a": "\N{LATIN SMALL LETTER E WITH ACUTE}"})], path)
    assert path.read_bytes()[:10] == b"\xef\xbb\xbfrequest"


def test_json_lines_and_arrays_have_the_inputs(tmp_path: Path) -> None:
    requests = [asked(input=torch.tensor([0.5, 2.0]), score=None), asked(None, input=torch.tensor([1.0, 3.0]))]
    write_requests(requests, tmp_path / "a.jsonl")
    one, two = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (one["input"], one["label"], two["sample"]) == ([0.5, 2.0], None, None)
    write_requests(requests, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["input"].tolist() == [[0.5, 2.0], [1.0, 3.0]]
        assert found["sample"].tolist() == [3, -1]
        assert np.isnan(found["score"]).tolist() == [True, False]


def test_json_lines_have_the_units_of_what_is_shown(tmp_path: Path) -> None:
    write_requests([asked(shown={"T": 900.0}, units={"T": "K"}), asked(shown={"T": 900.0})], tmp_path / "a.jsonl")
    data = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row.get("units") for row in data] == [{"T": "K"}, None]
