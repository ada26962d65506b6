"""The command itself: sub-commands of plugins, options before a sub-command, and how an error is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alcore.cli import application as module
from alcore.cli.main import _take_only
from alcore.plugins import Plugin, Registry
from alcore.plugins.registry import core_version


def plugin(*commands):
    return Plugin("greeter", "1.0", "g", "greeter", commands=list(commands))


def test_plugin_that_fails_to_add_commands_is_warned_of(capsys):
    def add(app):
        app.command("greet")(lambda: None)

    def fail(app):
        raise LookupError("no app")

    app = module.application(Registry([plugin(fail), plugin(add)]))
    names = [command.name for command in app.registered_commands]
    standard = "run resume fork runs show plugins describe"
    assert names == [*standard.split(), "greet"]
    assert capsys.readouterr().err == (
        "alcore: warning: plugin greeter 1.0: its commands are left out: LookupError: no app.\n"
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
    _take_only(["alcore", *words])
    only = os.environ.pop("ALCORE_ONLY", None)
    assert only == expected


def test_unexpected_error_is_one_line_and_exits_with_1(command, monkeypatch):
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


def test_interruption_exits_with_130(command, monkeypatch):
    def interrupted(registry):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "application", interrupted)
    assert command("runs", code=130) == ("", "alcore: interrupted.\n")


def test_debug_may_stand_anywhere(command, monkeypatch):
    monkeypatch.setattr(module, "application", lambda _registry: lambda **_: print(sys.argv))
    assert command("--version", "--debug") == ("['alcore', '--version']\n", "")


def test_error_is_reported_to_torchrun(command, monkeypatch, tmp_path):
    def broken(registry):
        raise RuntimeError("worn out")

    monkeypatch.setattr(module, "application", broken)
    command("runs", code=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    command("runs", code=1)
    assert "worn out" in (tmp_path / "error.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--seed", "abc"], "Invalid value for '--seed': 'abc' is not an integer."),
        (["run", "--budget", "much"], "Invalid value for '--budget': 'much' is not a number."),
        (["show", "x", "--step", "y"], "Invalid value for '--step': 'y' is not an integer."),
        (["fork", "x", "--step", "y"], "Invalid value for '--step': 'y' is not an integer."),
    ],
    ids=" ".join,
)
def test_flag_that_takes_a_number_says_so(command, arguments, message):
    assert message in command(*arguments, code=2)[1]


def test_shells_complete_names_and_runs(tmp_path):
    (tmp_path / "active_learning_logs" / "seven").mkdir(parents=True)
    (tmp_path / "active_learning_logs" / "seven" / "run.db").touch()
    for words, expected in (("alcore run --query ba", {"badge", "bald", "batchbald"}), ("alcore show se", {"seven"})):
        environment = {
            **os.environ,
            "_ALCORE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        call = [str(Path(sys.executable).with_name("alcore"))]
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert set(done.stdout.split()) == expected


def test_error_of_another_rank_names_the_rank(command, monkeypatch):
    def broken(registry):
        raise RuntimeError("worn out")

    monkeypatch.setattr(module, "application", broken)
    monkeypatch.setenv("RANK", "1")
    assert command("runs", code=1)[1].startswith("alcore, rank 1: error: RuntimeError: worn out.")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["describe", "qery", "uq"], ["'qery'", "did you mean 'query'?"]),
        (["describe", "query", "ug"], ["'ug'", "did you mean 'uq'?"]),
        (["show", "nothing"], ["'nothing'", "active_learning_logs", "alcore runs"]),
        (["show", "./nothing"], ["nothing", "run directory"]),
        (["export", "nothing"], ["'nothing'"]),
        (["resume", "nothing"], ["'nothing'"]),
        (["plugins", "lits"], ["lits", "list or check"]),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_in_one_paragraph(command, arguments, fragments):
    out, err = command(*arguments, code=2)
    assert out == ""
    assert err.startswith("alcore: error: ")
    assert err.count("alcore: ") == err.count("\n") == 1
    for fragment in fragments:
        assert fragment in err


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["rnu"], "'run"),
        (["run", "--qury", "uq"], "--query"),
        (["run", "--seed", "x"], "--seed"),
        (["run", "a.toml", "b.toml"], "b.toml"),
        (["resume", "one", "--take-over"], "--take-over"),
        (["show"], "RUN"),
    ],
    ids=str,
)
def test_unknown_word_or_flag_exits_with_2(command, arguments, fragment):
    out, err = command(*arguments, code=2)
    assert fragment in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["predict", "mine", "new.csv"], "alcore-predict"),
        (["check", "experiment.toml"], "alcore-check"),
        (["ask", "mine"], "alcore-labelers"),
    ],
    ids=["predict", "check", "ask"],
)
def test_command_of_a_plugin_that_is_not_installed_says_which_it_is(command, monkeypatch, words, package):
    monkeypatch.setattr("alcore.plugins.registry.find_entry_points", list)
    out, err = command(*words, code=2)
    assert (out, err) == (
        "",
        f"alcore: error: there is no command '{words[0]}'. It comes with {package}: pip install {package}, or in a "
        f"checkout of alcore pip install -e plugins/{package}. `alcore plugins` lists what is installed.\n",
    )


def test_standard_command_is_there_whatever_only_says(command):
    assert "Missing argument 'RUN'" in command("--only", "uq", "export", code=2)[1]
    assert "there is no command 'dash'. Left out by" in command("--only", "uq", "dash", "--port", "-1", code=2)[1]


def test_traceback_is_shown_with_debug_only(command):
    _, plain = command("describe", "query", "up", code=2)
    assert "Traceback" not in plain
    _, debug = command("--debug", "describe", "query", "up", code=2)
    assert "Traceback (most recent call last)" in debug
    assert debug.endswith(plain)


def test_help_names_every_command_and_how_to_start(command):
    text, _ = command("--help")
    for name in ("run", "resume", "fork", "runs", "show", "export", "plugins", "describe"):
        assert f"\n  {name} " in text
        assert f"alcore {name} " in command(name, "--help")[0].splitlines()[0]
    assert "alcore run --query uq --metrology f1" in text
    assert command("-h")[0] == text


def test_version_is_that_of_the_distribution(command):
    assert command("--version")[0] == f"alcore {core_version()}\n"
