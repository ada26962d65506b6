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


def said(metric: str, now: float, expected: float, low: float, high: float) -> str:
    ahead = Forecast(*(np.array([number]) for number in (320.0, expected, low, high)), limit=expected)
    return RunForecast(f"m.{metric}", np.array([220.0]), np.array([now]), ahead).verdict


def test_verdict_says_what_more_labels_bring() -> None:
    better = said("f1", 0.5, 0.6, 0.55, 0.65)
    assert better.startswith("100 more labels are expected to bring f1 from 0.5 to 0.6; 90% interval 0.55 to 0.65")
    assert better.endswith("all of it better than now.")
    assert said("rmse", 0.5, 0.4, 0.35, 0.45).endswith("all of it better than now.")
    assert said("rmse", 0.5, 0.6, 0.55, 0.65).endswith("all of it worse than now.")
    assert said("f1", 0.5, 0.6, 0.45, 0.7).endswith("they may bring nothing.")


def test_verdict_of_one_label_is_of_one() -> None:
    ahead = Forecast(*(np.array([number]) for number in (221.0, 0.6, 0.5, 0.7)), limit=0.6)
    verdict = RunForecast("m.f1", np.array([220.0]), np.array([0.5]), ahead).verdict
    assert verdict.startswith("1 more label is expected to bring f1 from 0.5 to 0.6;")


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
    assert "40 more labels are expected to bring f1" in done.out


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
