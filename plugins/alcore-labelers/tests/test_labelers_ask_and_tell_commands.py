"""``alcore ask`` and ``alcore tell``: labeling by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alcore_labelers import AskLabelStrategy

from alcore import Driver

Command = Callable[..., tuple[str, str]]
RUN = ("run", "--label", "ask", "--run-id", "r", "--steps", "1", "--set", "query.uq.max_samples=3")


def fill_in(path: Path, *labels: str) -> None:
    rows = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
    for row, label in zip(rows, labels, strict=True):
        row["label"] = label
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_loop_of_labeling_by_hand(command: Command, tmp_path: Path) -> None:
    out, _ = command(*RUN, code=3)
    assert "Waiting for labels: 0 of 3 requests of step 0 are answered." in out
    assert [line.split("  ")[1] for line in out.splitlines()[-3:]] == [
        "alcore ask r --out FILE.csv",
        "alcore tell r FILE.csv",
        "alcore resume r",
    ]
    assert "waiting" in command("runs")[0]

    out, _ = command("ask", "r", "--out", "todo.csv")
    assert out.splitlines() == [
        "todo.csv: 3 requests of run r",
        "Fill in label with one of: 0, 1.",
        "Next: alcore tell r todo.csv",
    ]
    assert (tmp_path / "todo.csv").read_text() == command("ask", "r")[0]
    fill_in(tmp_path / "todo.csv", "1", "cat", "")
    out, _ = command("tell", "r", "todo.csv", code=1)
    assert out.splitlines() == [
        "todo.csv: 1 answer accepted (1 label)",
        "1 row without an answer",
        "1 answer refused:",
        "  line 3: 'cat' is not one of the classes; there are: 0, 1",
        "Next: correct these rows, and tell again: alcore tell r todo.csv",
    ]
    out, err = command("resume", "r", "--json", code=3)
    assert (json.loads(out)["status"], json.loads(out)["steps"]) == ("waiting", 0)
    assert "1 of 3 requests" in err

    fill_in(tmp_path / "todo.csv", "1", "0", "1")
    out, _ = command("tell", "r", "todo.csv")
    assert out.splitlines() == [
        "todo.csv: 2 answers accepted (2 labels)",
        "1 answer told before, which changes nothing",
        "Next: alcore resume r",
    ]
    assert "Ended: all 1 steps are done." in command("resume", "r")[0]
    data = json.loads(command("tell", "r", "todo.csv", "--json")[0])
    assert {answer["verdict"] for answer in data["answers"]} == {"repeated"}
    assert "every request of run r has its answer" in command("ask", "r")[1]


def test_table_of_data_shows_its_own_columns(command: Command, tmp_path: Path) -> None:
    lines = [f"T{place},{place % 7},{place % 5},{'ab'[place % 2]}" for place in range(60)]
    (tmp_path / "data.csv").write_text("\n".join(["id,x,y,label", *lines]) + "\n")
    data = ("--data", "csv", "--set", "data.csv.path=data.csv", "--set", "data.csv.target=label")
    command(*RUN, *data, "--set", 'data.csv.drop=["id"]', "--set", "label.ask.min_labels=1", code=3)
    out, _ = command("ask", "r")
    rows = list(csv.DictReader(out.splitlines()))
    assert [lines[int(row["row"])].split(",")[:3] for row in rows] == [[row["id"], row["x"], row["y"]] for row in rows]
    assert all(int(row["line"]) == int(row["row"]) + 2 for row in rows)
    assert {row["label"] for row in rows} == {""}
    (tmp_path / "one.csv").write_text(f"sample;label\n{rows[1]['sample']};B\n")
    assert "1 answer accepted (1 label)" in command("tell", "r", "one.csv")[0]
    assert "Ended: all 1 steps are done." in command("resume", "r")[0]


def test_run_built_in_python_is_told_from_the_command_line(command: Command, build: Callable[..., Any]) -> None:
    driver: Driver = build(label_strategy=AskLabelStrategy(), run_id="p")
    driver.run()
    out, err = command("ask", "runs/p")
    assert "inputs are not shown, as the data can't be made again: " in err
    (first, *_) = csv.DictReader(out.splitlines())
    Path("a.csv").write_text(f"request,label\n{first['request']},1\n")
    out, _ = command("tell", "runs/p", "a.csv")
    assert "1 answer accepted (1 label)" in out
    assert [request.sample for request in driver.ask()] == [9, 10]


def test_wrong_use_is_one_paragraph(command: Command) -> None:
    command(*RUN, code=3)
    assert "there are: .csv, .jsonl, .npz" in command("ask", "r", "--out", "a.xlsx", code=2)[1]
    assert "nosuch.csv can't be read: No such file" in command("tell", "r", "nosuch.csv", code=2)[1]
    assert "there is no run 'q'" in command("ask", "q", code=2)[1]
    err = command("resume", "r", "--set", "label.ask.min_labels=-1", code=2)[1]
    assert "min_labels is -1; it must not be negative, while building label.ask" in err
