"""What commands share: the flags of [driver], and which of several ranks speaks."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import typing
from types import SimpleNamespace

import pytest

from alcore.cli import common
from alcore.cli.common import DRIVER_FLAGS, DriverTable, check_restart, prepare, say, takes_driver_flags
from alcore.errors import UsageError
from alcore.experiment.settings import DRIVER


@pytest.mark.parametrize("name", DRIVER_FLAGS)
def test_flag_sets_a_parameter_of_the_driver_table(name):
    flag = DRIVER_FLAGS[name]
    hint = DRIVER.parameters[flag.setting].hint
    assert flag.type in (hint, *typing.get_args(hint), str)
    for default in re.findall(r"\[(.+)\]", flag.help):
        assert default == str(DRIVER.parameters[flag.setting].default).removeprefix("torch.")


def test_command_gets_the_flags_that_were_given():
    seen = {}

    @takes_driver_flags(steps=None, budget="Another help.")
    def command(*, first: int = 1, table: DriverTable, last: bool = False) -> None:
        seen.update(first=first, table=table, last=last)

    command(first=2, steps=3, budget=None, last=True)
    assert seen == {"first": 2, "table": {"max_active_learning_steps": 3}, "last": True}
    assert list(typing.get_type_hints(command)) == ["first", "steps", "budget", "last"]


@pytest.mark.parametrize(
    ("rank", "on_every_rank", "expected"),
    [(None, False, "alcore: a\n"), ("0", True, "alcore: a\n"), ("1", False, ""), ("1", True, "alcore, rank 1: a\n")],
)
def test_message_comes_from_rank_0_unless_it_concerns_every_rank(monkeypatch, capsys, rank, on_every_rank, expected):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    say("a", on_every_rank=on_every_rank)
    assert capsys.readouterr() == ("", expected)


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
    for _ in range(3):
        prepare()
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
    with pytest.raises(common.typer.Exit) as end:
        common.run_driver(driver, is_resumed=is_resumed)
    assert (end.value.exit_code, capsys.readouterr().err) == (130, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_the_last_safe_point_is_not_swallowed(tmp_path, monkeypatch, capsys, number):
    monkeypatch.chdir(tmp_path)

    def run(driver):
        make_run(driver)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(common.typer.Exit) as end:
        common.run_driver(driver_that(run, tmp_path))
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

    monkeypatch.setattr(common, "end_at_once", end_at_once)
    with pytest.raises(SystemExit):
        common.run_driver(driver_that(run, tmp_path))
    assert [f"alcore: {text}\n" for text in said] == [GO_ON]
