"""The example with ignition delays of Cantera: its solver, what prepare.py writes, and a run on it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import pytest
from helpers.examples import EXAMPLES, prepared, run_example, script

FOLDER = EXAMPLES / "ignition"
HELD_OUT = FOLDER / "data" / "held_out.csv"


@pytest.fixture
def ignition() -> ModuleType:
    prepared(HELD_OUT)
    return script(FOLDER / "ignition.py")


def test_delays_fall_with_temperature_over_decades(ignition: ModuleType) -> None:
    delays = [ignition.log10_delay({"T": float(kelvin), "p": 1e5, "phi": 1.0}) for kelvin in (900, 1000, 1300, 1800)]
    assert delays == sorted(delays, reverse=True)
    assert delays[0] - delays[-1] > 2
    assert delays[1] == pytest.approx(-3.52, abs=0.1)


def test_what_does_not_ignite_in_time_says_so(ignition: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ignition, "LONGEST", 1e-4)
    with pytest.raises(ignition.NoIgnitionError, match=r"no ignition in 0\.0001 s"):
        ignition.log10_delay({"T": 900.0, "p": 1e5, "phi": 1.0})


def test_points_to_measure_on_are_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(HELD_OUT)
    prepare = script(FOLDER / "prepare.py")
    monkeypatch.setattr(prepare, "POINTS", 4)
    monkeypatch.syspath_prepend(str(FOLDER))
    prepare.solve(tmp_path / "data" / "few.csv")
    with (tmp_path / "data" / "few.csv").open(newline="") as few, HELD_OUT.open(newline="") as all_:
        some = list(csv.reader(few))
        assert some == list(csv.reader(all_))[: len(some)]
    assert some[0] == ["T", "p", "phi", "log10_delay"]
    assert len(some) in (4, 5)


def test_a_few_steps_on_ignition_delays(tmp_path: Path) -> None:
    prepared(HELD_OUT)
    words = ("--steps", "4", "--metrology", "regression")
    records = run_example(FOLDER, "ignition.toml", "--allow-code", *words, root=tmp_path)
    assert records[0]["train_samples"] in (14, 15)
    assert 24 < records[-1]["train_samples"] <= 30
    assert all(record["on"] == "validation" and 190 < record["samples"] <= 200 for record in records)
    assert records[-1]["rmse"] < records[0]["rmse"]
