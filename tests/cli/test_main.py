"""The application itself: sub-commands of plugins, ``--only``, and how an error looks."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alcore.cli import main as module
from alcore.cli.tables import curve, some, table
from alcore.plugins import Plugin, Registry


def plugin(*commands):
    return Plugin("greeter", "1.0", "g", "greeter", commands=list(commands))


def test_a_plugin_that_can_not_add_its_commands_is_warned_of(capsys):
    def add(app):
        app.command("greet")(lambda: None)

    def fail(app):
        raise LookupError("no app")

    app = module.application(Registry([plugin(fail), plugin(add)]))
    names = [command.name for command in app.registered_commands]
    assert names == ["run", "resume", "fork", "runs", "show", "export", "plugins", "describe", "greet"]
    assert capsys.readouterr().err == (
        "alcore: warning: the commands of greeter 1.0 are left out: LookupError: no app.\n"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "a,b", "run"], "a,b"),
        (["--only=a", "run"], "a"),
        (["--version", "--only", "a"], "a"),
        (["run", "--only", "a"], None),
        (["run", "--label", "--only=x"], None),
        (["--only"], None),
        ([], None),
    ],
)
def test_only_is_read_before_the_sub_command(monkeypatch, words, expected):
    monkeypatch.setenv("ALCORE_ONLY", "x")
    monkeypatch.delenv("ALCORE_ONLY")
    module._take_only(["alcore", *words])
    found = os.environ.pop("ALCORE_ONLY", None)
    assert found == expected


def test_an_unexpected_error_is_one_line_and_exit_code_1(command, monkeypatch):
    def broken(registry):
        error = RuntimeError("worn out")
        error.add_note("in the query phase of step 3 of run x")
        raise error

    monkeypatch.setattr(module, "application", broken)
    out, err = command("runs", code=1)
    assert out == ""
    assert err == (
        "alcore: error: RuntimeError: worn out, in the query phase of step 3 of run x. "
        "Run it again with --debug for the traceback.\n"
    )
    _, err = command("runs", "--debug", code=1)
    assert "Traceback (most recent call last)" in err


def test_an_interruption_exits_with_130(command, monkeypatch):
    def interrupted(registry):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "application", interrupted)
    assert command("runs", code=130) == ("", "alcore: interrupted.\n")


def test_debug_is_taken_out_of_the_arguments_wherever_it_stands(command):
    command("--version", "--debug")
    assert sys.argv == ["alcore", "--version"]


def test_a_table_puts_numbers_right_and_words_left():
    assert table([["a", 1, 0.5], ["bcd", 10, None]], ["name", "n", "score"]) == (
        "name   n   score\n"
        "a      1  0.5000\n"
        "bcd   10       -"
    )  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(["x", "yy", "zzz", "-5"]), min_size=3, max_size=3), max_size=6))
def test_every_cell_of_a_table_is_found_under_its_header(rows):
    header = ["one", "three", "n"]
    lines = table(rows, header).splitlines()
    assert [line.split() for line in lines] == [header, *rows]


@given(st.integers(0, 500), st.integers(2, 40))
def test_some_keeps_the_ends_and_the_order(size, most):
    items = list(range(size))
    chosen = some(items, most)
    assert len(chosen) == min(size, most)
    assert chosen == sorted(set(chosen))
    assert chosen[:1] + chosen[-1:] == items[:1] + items[-1:]


def test_a_curve_shows_fractions_alone_and_where_they_were_measured():
    records = {"f1": [{"step": 0, "train_samples": 5, "on": "pool", "f1": 0.25, "samples": 9, "positive": "1"}]}
    title, *lines = curve(records, 5).splitlines()
    assert title.startswith("f1, on")
    assert title.endswith("pool")
    assert lines == ["step  samples      f1", "   0        5  0.2500"]
