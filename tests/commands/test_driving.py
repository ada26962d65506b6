"""Running a Driver: signals, restarts, and what is said of a run that was cut off."""

from __future__ import annotations

import importlib
import logging
import os
import signal
from types import SimpleNamespace

import pytest
import typer

from alcore.commands import driving
from alcore.commands.driving import check_restart, prepare, run_driver
from alcore.errors import UsageError
from alcore.plugins import Registry


@pytest.mark.parametrize(("run_id", "resume"), [(None, "auto"), ("one", "never")])
def test_restart_that_would_begin_another_run_is_refused(monkeypatch, run_id, resume):
    check_restart(run_id, resume)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    check_restart("one", "auto")
    with pytest.raises(UsageError, match="--run-id ID --resume auto"):
        check_restart(run_id, resume)


def test_each_warning_is_printed_once_however_often_the_command_was_called(monkeypatch, capsys):
    logger = logging.getLogger("alcore")
    monkeypatch.setattr(logger, "handlers", [])
    context = SimpleNamespace(obj=Registry([], []))
    for _ in range(3):
        assert prepare(context) is context.obj
    logger.warning("the disk is nearly full")
    assert capsys.readouterr().err == "alcore: warning: the disk is nearly full\n"


def driver_that(run, folder):
    """Return what of a Driver `run_driver` uses; its run is `run`, which is given the driver."""
    driver = SimpleNamespace(
        log_dir=folder / "active_learning_logs" / "e11", config=SimpleNamespace(resume="never"), interrupted=False,
        active_learning_step_idx=2, names_code=False, stop_reason="all 3 steps are done",
    )  # fmt: skip
    driver.interrupt = lambda: setattr(driver, "interrupted", True)
    driver.run = lambda: run(driver)
    return driver


def make_run(driver):
    driver.log_dir.mkdir(parents=True)
    (driver.log_dir / "run.db").touch()


def cut_off(driver):
    raise KeyboardInterrupt


def made_and_cut_off(driver):
    make_run(driver)
    raise KeyboardInterrupt


NOTHING = "alcore: interrupted before the run began.\n"
GO_ON = (
    "alcore: interrupted in step 2; every label so far is in active_learning_logs/e11. Go on with: alcore resume e11\n"
)


@pytest.mark.parametrize(
    ("run", "was_there", "is_resumed", "expected"),
    [
        (cut_off, False, False, NOTHING),
        (cut_off, True, False, NOTHING),
        (cut_off, True, True, GO_ON),
        (made_and_cut_off, False, False, GO_ON),
    ],
    ids=["nothing-there", "another-run", "resumed", "made"],
)
def test_interrupted_run_is_promised_only_if_it_is_there(
    tmp_path, monkeypatch, capsys, run, was_there, is_resumed, expected
):
    monkeypatch.chdir(tmp_path)
    driver = driver_that(run, tmp_path)
    if was_there:
        make_run(driver)
    with pytest.raises(typer.Exit) as end:
        run_driver(driver, is_resumed=is_resumed)
    assert (end.value.exit_code, capsys.readouterr().err) == (130, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_the_last_safe_point_is_not_swallowed(tmp_path, monkeypatch, capsys, number):
    monkeypatch.chdir(tmp_path)

    def run(driver):
        make_run(driver)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(typer.Exit) as end:
        run_driver(driver_that(run, tmp_path))
    assert end.value.exit_code == 130
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"alcore: {number.name}: ending at the next safe point; once more ends at once.",
        "alcore: interrupted when the run had ended: all 3 steps are done. It is in active_learning_logs/e11",
    ]


def test_second_signal_in_an_import_ends_the_process_with_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_that_is_ended.py").write_text(
        "import os, signal\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "raise AttributeError('half a module')\n"
    )
    said = []

    def end_at_once(text):
        said.append(text)
        raise SystemExit(130)

    def run(driver):
        make_run(driver)
        importlib.import_module("module_that_is_ended")

    monkeypatch.setattr(driving, "end_at_once", end_at_once)
    with pytest.raises(SystemExit):
        run_driver(driver_that(run, tmp_path))
    assert [f"alcore: {text}\n" for text in said] == [GO_ON]
