"""What commands share: the flags of [driver], and which of several ranks speaks."""

from __future__ import annotations

import logging
import re
import typing

import pytest

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
