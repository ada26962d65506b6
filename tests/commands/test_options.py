"""Flags that several commands have: those of the table [driver]."""

from __future__ import annotations

import re
import typing

import pytest

from alcore.commands.options import DRIVER_FLAGS, DriverTable, takes_driver_flags
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


def test_command_that_names_no_flags_gets_all():
    @takes_driver_flags()
    def command(*, table: DriverTable) -> None: ...

    assert list(typing.get_type_hints(command)) == list(DRIVER_FLAGS)
