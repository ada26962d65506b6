"""Forecasts: what is expected, how sure it is, and what the command says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from alcore_report import Curve, Forecast, RunForecast, forecast, forecast_curve
from alcore_testing import run_command

from alcore import UsageError
from alcore.store import find_run

LABELS = np.arange(20.0, 221.0, 10.0)


def law(n: np.ndarray) -> np.ndarray:
    return 0.9 - 2.0 * n**-0.7


def test_power_law_without_noise_is_continued() -> None:
    ahead = forecast(LABELS, law(LABELS), np.array([260.0, 320.0, 420.0]))
    assert ahead.expected == pytest.approx(law(np.array([260.0, 320.0, 420.0])), abs=0.015)
    assert (ahead.low <= ahead.expected).all()
    assert (ahead.expected <= ahead.high).all()
    assert ahead.limit == pytest.approx(0.9, abs=0.05)


def test_errors_are_forecast_as_their_negatives_are() -> None:
    at = np.array([250.0, 300.0])
    up, down = forecast(LABELS, law(LABELS), at), forecast(LABELS, -law(LABELS), at)
    assert down.expected == pytest.approx(-up.expected, abs=1e-9)
    assert down.low == pytest.approx(-up.high, abs=1e-9)


def test_scale_and_shift_of_the_metric_change_nothing() -> None:
    values = law(LABELS) + np.random.default_rng(0).normal(0, 0.01, len(LABELS))
    at = np.array([250.0, 320.0])
    plain, other = forecast(LABELS, values, at), forecast(LABELS, 1000 * values - 7, at)
    for name in ("expected", "low", "high"):
        assert getattr(other, name) == pytest.approx(1000 * getattr(plain, name) - 7, rel=1e-6)


def test_intervals_hold_what_is_measured_later() -> None:
    """Of 60 noisy power laws, independent and correlated, at least 90% are held, within what 60 can tell."""
    draws, held = np.random.default_rng(1), 0
    places = np.append(LABELS, 320.0)
    for _ in range(60):
        noise, before = [], 0.0
        correlation = draws.choice([0.0, 0.6])
        for _ in places:
            before = correlation * before + draws.normal(0, 0.02)
            noise.append(before)
        top, rate = draws.uniform(0.6, 0.95), draws.uniform(0.4, 1.2)
        values = top - 2 * places**-rate + np.array(noise)
        ahead = forecast(LABELS, values[:-1], places[-1:])
        held += bool(ahead.low[0] <= values[-1] <= ahead.high[0])
    assert held >= 48  # 54 are expected, and fewer than 48 come in one of 100 such tests


def test_intervals_grow_with_the_distance_and_the_noise() -> None:
    draws = np.random.default_rng(0).normal(0, 1, len(LABELS))
    widths = []
    for noise in (0.002, 0.02):
        ahead = forecast(LABELS, law(LABELS) + noise * draws, np.array([230.0, 320.0, 620.0]))
        width = ahead.high - ahead.low
        assert (np.diff(width) > 0).all()
        widths.append(width)
    assert (widths[1] > widths[0]).all()


def test_bounds_of_the_metric_are_kept() -> None:
    ahead = forecast(LABELS, 1 - 2.0 * LABELS**-0.9, np.array([5000.0]), bounds=(0.0, 1.0))
    assert ahead.high[0] <= 1


@pytest.mark.parametrize("values", [law(LABELS[:5]), np.full(21, np.nan)])
def test_too_few_measurements_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UsageError, match="at least 6 measurements"):
        forecast(LABELS[: len(values)], values, np.array([300.0]))


def test_constant_metric_stays() -> None:
    ahead = forecast(LABELS, np.full(len(LABELS), 0.5), np.array([300.0]))
    assert ahead.expected[0] == pytest.approx(0.5, abs=1e-4)
    assert ahead.high[0] - ahead.low[0] < 1e-3


def curve(values: np.ndarray, name: str = "f1") -> Curve:
    return Curve("uq", 0, LABELS, None, {f"m.{name}": values}, "here")


def verdict_of(metric: str, low: float, high: float, at: tuple[float, ...] = (245, 270, 295, 320)) -> str:
    """Return the verdict of a metric that is 0.5 at 220 labels, with an interval of its change at the last place."""
    places, ones = np.array(at), np.ones(len(at))
    expected = 0.5 + 0.001 * (places - 220)
    ahead = Forecast(places, expected, expected - 1, expected + 1, 0 * ones, low * ones, high * ones, limit=1.0)
    return RunForecast(f"m.{metric}", np.array([220.0]), np.array([0.5]), ahead).verdict


def test_verdict_says_what_the_next_labels_bring_and_as_many_again() -> None:
    words = "The next 50 labels are expected to bring f1 from 0.5 to 0.55, and 50 more to 0.6. "
    assert verdict_of("f1", 0.02, 0.1) == (
        f"{words}They will help: with all of them it will change by +0.02 to +0.1 (90% interval), noise left out."
    )
    assert verdict_of("f1", -0.02, 0.1).startswith(f"{words}They may bring nothing: ")
    assert verdict_of("f1", -0.02, -0.01).startswith(f"{words}It gets worse: ")
    assert "They will help: " in verdict_of("rmse", -0.02, -0.01)
    assert "It gets worse: " in verdict_of("rmse", 0.01, 0.02)
    assert "They may bring nothing: " in verdict_of("f1", 0.0, 0.0)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ((221.0,), "The next label is expected to bring f1 from 0.5 to 0.501. They"),
        ((221.0, 222.0), "The next label is expected to bring f1 from 0.5 to 0.501, and 1 more to 0.502. They"),
    ],
    ids=["one", "two"],
)
def test_verdict_of_few_labels(at: tuple[float, ...], words: str) -> None:
    assert verdict_of("f1", 0.1, 0.2, at).startswith(words)


def test_change_of_a_curve_is_that_of_its_law() -> None:
    draws = np.random.default_rng(3).normal(0, 0.005, len(LABELS))
    at = np.array([270.0, 320.0])
    ahead = forecast(LABELS, law(LABELS) + draws, at)
    true = law(at) - law(LABELS[-1:])
    assert (ahead.change_low < true).all()
    assert (true < ahead.change_high).all()
    assert (ahead.change_low > 0).all(), "so clear a curve will go on"
    assert (ahead.change_high - ahead.change_low < ahead.high - ahead.low).all(), "it has no noise of a measurement"
    down = forecast(LABELS, -law(LABELS) - draws, at)
    assert down.change_low == pytest.approx(-ahead.change_high, abs=1e-9)


def test_that_labels_will_help_is_rarely_said_of_noise() -> None:
    """Of 100 flat curves it is said of 5 in 100 by each side at most, within what 100 can tell."""
    draws = np.random.default_rng(2)
    flat = [forecast(LABELS, draws.normal(0, 1, len(LABELS)), np.array([320.0])) for _ in range(100)]
    assert sum(ahead.change_low[0] > 0 for ahead in flat) <= 10
    assert sum(ahead.change_high[0] < 0 for ahead in flat) <= 10


def test_places_are_quarters_of_the_labels_asked_for() -> None:
    assert forecast_curve(curve(law(LABELS)), 100).ahead.labels.tolist() == [245, 270, 295, 320]
    assert forecast_curve(curve(law(LABELS)), 2).ahead.labels.tolist() == [221, 222]


def test_command_says_what_python_does(tmp_path: Path) -> None:
    assert run_command(tmp_path, "run", "--steps", "8", "--run-id", "mine", "--quiet").code == 0
    done = run_command(tmp_path, "forecast", "mine", "--labels", "40", "--json", "--plot", "curve.svg")
    plain = json.loads(done.out)
    records = find_run(tmp_path / "active_learning_logs", "mine").records()["f1_metrology"]
    assert [point["value"] for point in plain["measured"]] == [record["f1"] for record in records]
    assert [point["labels"] for point in plain["forecast"]] == [140, 150, 160, 170]
    assert all(0 <= point["low"] <= point["expected"] <= point["high"] <= 1 for point in plain["forecast"])
    assert all(point["change_low"] <= point["change"] <= point["change_high"] for point in plain["forecast"])
    assert "90% interval" in (tmp_path / "curve.svg").read_text(encoding="utf-8")
    text = run_command(tmp_path, "forecast", "mine", "--labels", "40").out
    assert plain["verdict"] in text
    assert not any(math.isnan(point["expected"]) for point in plain["forecast"])


def test_run_that_is_not_done_is_forecast(tmp_path: Path) -> None:
    (tmp_path / "stopped_parts.py").write_text(
        "import alcore\n\n\nclass Interrupts:\n    @alcore.runhook\n    def alcore_step_end(self, record):\n"
        "        if record['step'] == 7:\n            raise KeyboardInterrupt\n"
    )
    words = ["run", "--steps", "20", "--run-id", "mine", "--quiet", "--observe", "stopped_parts:Interrupts"]
    assert run_command(tmp_path, *words).code == 130
    done = run_command(tmp_path, "forecast", "mine", "--labels", "40")
    assert done.code == 0, done.err
    assert "The next 20 labels are expected to bring f1" in done.out


def test_forecast_of_a_pool_that_has_run_out_says_so(tmp_path: Path) -> None:
    words = ["run", "--steps", "12", "--run-id", "mine", "--quiet", "--set", "data.moons.samples=90"]
    assert run_command(tmp_path, *words).code == 0
    assert find_run(tmp_path / "active_learning_logs", "mine").steps()[-1]["requested"] == 0
    note = "Note: the last step of this run asked for no label"
    assert note in run_command(tmp_path, "forecast", "mine").out
    assert json.loads(run_command(tmp_path, "forecast", "mine", "--json").out)["note"].startswith(note)


def test_run_that_is_too_short_is_refused(tmp_path: Path) -> None:
    assert run_command(tmp_path, "run", "--steps", "2", "--run-id", "mine", "--quiet").code == 0
    done = run_command(tmp_path, "forecast", "mine")
    assert done.code == 2
    assert "at least 6 measurements" in done.err
