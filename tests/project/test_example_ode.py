"""The example with a reactor in SciPy: its solver against the closed form without heat, and a run on it."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
from helpers.examples import EXAMPLES, run_example, script

FOLDER = EXAMPLES / "ode"


@pytest.fixture
def reactor() -> ModuleType:
    pytest.importorskip("scipy")
    return script(FOLDER / "reactor.py")


@pytest.mark.parametrize("temperature", [310.0, 350.0, 390.0])
@pytest.mark.parametrize("time", [10.0, 300.0, 9000.0])
def test_without_heat_the_yield_is_that_of_the_closed_form(
    reactor: ModuleType, monkeypatch: pytest.MonkeyPatch, temperature: float, time: float
) -> None:
    monkeypatch.setattr(reactor, "HEATS", (0.0, 0.0))
    first, second = (
        rate * math.exp(-barrier / (reactor.GAS_CONSTANT * temperature))
        for rate, barrier in zip(reactor.RATES, reactor.BARRIERS, strict=True)
    )
    expected = first / (second - first) * (math.exp(-first * time) - math.exp(-second * time))
    point = {"temperature": temperature, "time": time, "concentration": 1.5}
    assert reactor.yield_of_b(point) == pytest.approx(expected, abs=1e-6)


def test_heat_makes_it_faster(reactor: ModuleType) -> None:
    dilute, strong = (
        reactor.yield_of_b({"temperature": 320.0, "time": 100.0, "concentration": concentration})
        for concentration in (0.1, 2.0)
    )
    assert 0 < dilute < strong < 1


def test_a_few_steps_of_the_reactor(tmp_path: Path) -> None:
    settings = ("data.space.validation=40", "training.max_training_epochs=200")
    flags = [word for setting in settings for word in ("--set", setting)]
    records = run_example(FOLDER, "reactor.toml", "--allow-code", "--steps", "4", *flags, root=tmp_path)
    assert [record["train_samples"] for record in records] == [15, 20, 25, 30]
    assert all(record["on"] == "validation" and record["samples"] == 40 for record in records)
    assert records[-1]["rmse"] < 0.8 * records[0]["rmse"]
