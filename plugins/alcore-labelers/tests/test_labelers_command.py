"""The strategy `command`: what programs are given, what is taken of what they leave, and what is run once."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from alcore_labelers import CommandLabelStrategy
from alcore_labelers.attempts import read_done
from alcore_labelers.programs import running_in
from alcore_testing import InProcessLabelContract, build_driver, run_command, toy_pool

from alcore import BaseQuery, DataInfo, TensorPool
from alcore.errors import UsageError
from alcore.store import Run

ASKED = (9, 2, 30, 17)


class Asks(BaseQuery):
    def __init__(self, items=ASKED):
        self.items = list(items)

    def sample(self, query_queue, *args, **kwargs):
        query_queue.put_many(self.items)


def program(folder, body, name="solver"):
    """Write a Python program, and return the words that run it."""
    path = folder / f"{name}.py"
    path.write_text("import json, os, sys, time\nimport numpy as np\n" + textwrap.dedent(body))
    return f"{sys.executable} {path}"


def shell(folder, body, name="solver"):
    """Write a program for sh, and return its name."""
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


def run(folder, command, items=ASKED, *, pool=None, settings=(), **parameters):
    """Run one labeling phase; return the run and the training pool's new items."""
    pool = pool or toy_pool("classes")
    before = len(pool)
    driver = build_driver(
        folder / "runs",
        Asks(items),
        pool=pool,
        label=CommandLabelStrategy(command, **parameters),
        **{"skip_training": True, "max_active_learning_steps": 1, **dict(settings)},
    )
    driver.run()
    return Run(driver.log_dir), [pool[place] for place in range(before, len(pool))]


def values(folder, command, items=ASKED, **parameters):
    return [int(target) for _, target in run(folder, command, items, **parameters)[1]]


def folder_of(ran, place=0, attempt="attempt-0"):
    (work,) = (ran.folder / "strategies").glob("*/work")
    return work / ran.requests()[place]["id"] / attempt


def reasons(ran):
    return [(refusal["kind"], refusal["reason"]) for refusal in ran.refused()]


class TestContract(InProcessLabelContract):
    name = "command"
    required_parameters = ("run",)
    idempotent = True

    def make(self, **parameters):
        labels = {sample: int(self.pool().answer(sample)[1]) for sample in range(40)}
        cases = " ".join(f"{sample}) echo {label};;" for sample, label in labels.items())
        return CommandLabelStrategy(f"sh -c 'case $ALCORE_SAMPLE in {cases} *) exit 1;; esac'", **parameters)


# -- what a program is given -----------------------------------------------------------------------------------


class Texts(TensorPool):
    """A pool that shows texts, as the columns of a file are."""

    texts = ("a b", "$(touch hacked)", "; touch hacked", "' \" \\", "x\ny", "*", "{seed}")

    def shown(self, samples):
        return {"a name": [self.texts[sample % 7] for sample in samples], "number": ["0.5"] * len(samples)}


def test_arguments_stay_one_each_whatever_they_contain(tmp_path):
    """Values are put in after the command was split, and no shell sees them."""
    command = program(tmp_path, "json.dump(sys.argv[1:], open('argv', 'w')); print(1)")
    pool = Texts(torch.zeros(20, 3), torch.arange(20) % 2, labeled=[0, 1])
    items = range(7, 14)
    ran, _ = run(tmp_path, f'{command} --x="{{a name}}" "{{{{}}}}" {{number:.3f}}', items, pool=pool)
    for place, text in enumerate(Texts.texts):
        assert json.loads((folder_of(ran, place) / "argv").read_text()) == [f"--x={text}", "{}", "0.500"]
    assert json.loads((folder_of(ran, 1) / "request.json").read_text())["values"]["a name"] == "$(touch hacked)"
    assert not list(tmp_path.rglob("hacked"))


def test_files_and_variables_say_what_it_works_on(tmp_path):
    command = program(
        tmp_path,
        """
        env = {name: value for name, value in os.environ.items() if name.startswith("ALCORE_") or name == "MINE"}
        json.dump(env, open("env.json", "w"))
        assert os.getcwd() == os.environ["ALCORE_FOLDER"]
        inputs = np.load("input.npz")["input"]
        json.dump({"label": int(inputs[0] > 0)}, open("result.json", "w"))
        """,
    )
    ran, _ = run(tmp_path, command, env={"MINE": "7"})
    folder, asked = folder_of(ran), ran.requests()[0]
    about = json.loads((folder / "request.json").read_text())
    inputs = toy_pool("classes").inputs(torch.tensor([9]))[0]
    assert about["values"] == {f"x{place}": value for place, value in enumerate(inputs.tolist())}
    assert "units" not in about
    assert (about["request"], about["sample"], about["attempt"], about["step"]) == (asked["id"], 9, 0, 0)
    env = json.loads((folder / "env.json").read_text())
    assert env == {
        "MINE": "7", "ALCORE_RUN": ran.folder.name, "ALCORE_FOLDER": str(folder), "ALCORE_REQUEST": asked["id"],
        "ALCORE_STEP": "0", "ALCORE_SAMPLE": "9", "ALCORE_ATTEMPT": "0", "ALCORE_SEED": str(about["seed"]),
    }  # fmt: skip
    assert torch.equal(torch.from_numpy(np.load(folder / "input.npz")["input"]), inputs)
    assert len({json.loads((folder_of(ran, place) / "request.json").read_text())["seed"] for place in range(4)}) == 4


def test_units_stand_beside_the_values(tmp_path):
    pool = toy_pool("classes")
    pool = Texts(pool.inputs(torch.arange(40)), torch.zeros(40, dtype=torch.int64), labeled=range(6), info=pool.info)
    pool.units = {"number": "m/s", "other": "K"}
    ran, _ = run(tmp_path, "echo 1", [9], pool=pool)
    assert json.loads((folder_of(ran) / "request.json").read_text())["units"] == {"number": "m/s"}


def test_seed_depends_on_the_seed_of_the_run_alone(tmp_path):
    def seeds(name, seed):
        ran, _ = run(tmp_path, "echo 1", settings={"run_id": name, "seed": seed})
        return [json.loads((folder_of(ran, place) / "request.json").read_text())["seed"] for place in range(4)]

    first = seeds("one", 1)
    assert seeds("two", 1) == first
    assert seeds("three", 2) != first


def test_files_of_the_users_folder_are_found_from_another(tmp_path, monkeypatch):
    program(tmp_path, "print(int(open(sys.argv[1]).read()))")
    (tmp_path / "case.txt").write_text("2")
    monkeypatch.chdir(tmp_path)
    assert values(tmp_path, f"{sys.executable} solver.py case.txt") == [2, 2, 2, 2]


UNKNOWN = {
    "./nowhere {x0}": "nowhere is not there",
    "surely_not_here": "no surely_not_here on the PATH",
    "echo {x9}": r"\{x9\}, which is not known: did you mean 'x[0-3]'",
    "echo {x0.real}": r"\{x0\.real\}, which is not known",
    "echo {x0:.3q}": r"can't be written as \{x0:\.3q\}",
}


@pytest.mark.parametrize("command", UNKNOWN)
def test_what_is_wrong_is_told_before_anything_is_bought(tmp_path, command):
    with pytest.raises(UsageError, match=UNKNOWN[command]):
        run(tmp_path, command)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"run": "echo 'x"}, "can't be split .* No closing quotation"),
        ({"run": "echo {x0!r}"}, "conversion"),
        ({"run": "echo {}"}, "without a name"),
        ({"run": "  "}, "run is empty"),
        ({"max_in_flight": 0}, "max_in_flight is 0"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"answer": "file"}, "answer is 'file'"),
        ({"env": {"A=B": "1"}}, "env names the variable 'A=B'"),
        (
            {"env": {"1A": "1"}},
            "variable '1A'; use ASCII letters, digits and underscores, no digit first",
        ),
    ],
)
def test_wrong_parameters_are_named(parameters, said):
    with pytest.raises(UsageError, match=said):
        CommandLabelStrategy(**{"run": "echo 1", **parameters})


# -- what is taken of what it leaves ---------------------------------------------------------------------------

ANSWERS = {
    "last line of stdout": ("print('about to'); print(2); print()", {}, 2),
    "class by name": ("print('blue')", {}, 1),
    "result.json": ("print(0); json.dump({'label': 2}, open('result.json', 'w'))", {}, 2),
    "bare value in result.json": ("json.dump(2, open('result.json', 'w'))", {}, 2),
    "stdout where it is wanted": (
        "print(2); json.dump({'label': 0}, open('result.json', 'w'))",
        {"answer": "stdout"},
        2,
    ),
    "only array": ("np.savez('result.npz', y=np.int64(2))", {}, 2),
    "named array": ("np.savez('result.npz', label=2, residual=[1.0])", {}, 2),
}


def colors():
    return TensorPool(
        torch.randn(40, 4, generator=torch.Generator().manual_seed(0)),
        torch.arange(40) % 3,
        labeled=[0, 1],
        info=DataInfo("classification", 3, 4, (4,), ("red", "blue", "green")),
    )


def switch(folder, bodies):
    """Write a program that does something else for each sample, and return the words that run it."""
    return program(folder, f"exec({bodies!r}[int(os.environ['ALCORE_SAMPLE'])])")


def test_answers_are_taken(tmp_path):
    """The cases are samples of one run, but for those with parameters of their own."""
    cases = dict(enumerate(ANSWERS.values(), start=2))
    bodies = {sample: body for sample, (body, _, _) in cases.items()}
    alike = {sample: expected for sample, (_, parameters, expected) in cases.items() if not parameters}
    assert values(tmp_path, switch(tmp_path, bodies), list(alike), pool=colors(), max_in_flight=2) == list(
        alike.values()
    )
    for sample, (_, parameters, expected) in cases.items():
        if parameters:
            assert values(tmp_path, switch(tmp_path, bodies), [sample], pool=colors(), **parameters) == [expected]


FAILURES = {
    "exit code": ("sys.stderr.write('no\\nmesh'); sys.exit(4)", "infrastructure", "exit code 4: mesh"),
    "infeasible exit code": ("sys.exit(3)", "infeasible", "exit code 3"),
    "status": (
        "json.dump({'status': 'infeasible', 'reason': 'no root'}, open('result.json', 'w')); sys.exit(1)",
        "infeasible",
        "no root",
    ),
    "withdrawn": ("json.dump({'status': 'withdrawn'}, open('result.json', 'w'))", "dropped", "says withdrawn"),
    "unknown status": (
        "json.dump({'status': 'sad'}, open('result.json', 'w'))",
        "infrastructure",
        "'sad', which is none",
    ),
    "nothing": ("pass", "infrastructure", "no result.json, no result.npz and nothing on stdout"),
    "half a file": ("open('result.json', 'w').write('{')", "infrastructure", "result.json is not valid JSON"),
    "signal": ("os.kill(os.getpid(), 9)", "infrastructure", "ended by signal 9"),
    "pickle": (
        "np.savez('result.npz', label=np.array([{}], object))",
        "infrastructure",
        "Object arrays cannot be loaded",
    ),
    "link": ("os.symlink('/etc/hostname', 'result.json')", "infrastructure", "result.json can't be read, or is a link"),
    "pipe": ("os.mkfifo('result.json')", "infrastructure", "no regular file"),
    "too long": ("np.savez_compressed('result.npz', label=np.zeros(10**6))", "infrastructure", "more than the 100000"),
    "other request": (
        "json.dump({'label': 1, 'request': '0' * 32}, open('result.json', 'w'))",
        "infrastructure",
        "answers the request '0000",
    ),
    "bad cost": ("json.dump({'label': 1, 'cost': -1}, open('result.json', 'w'))", "infrastructure", "cost is -1"),
    "huge cost": (
        "open('result.json', 'w').write('{\"label\": 1, \"cost\": 1' + 400 * '0' + '}')",
        "infrastructure",
        "not a number of at least 0",
    ),
    "status that is no text": ("json.dump({'status': []}, open('result.json', 'w'))", "infrastructure", "is none of"),
    "nested too deeply": ("print(50000 * '[')", "refused", "[[["),
    "half a character": (
        r"open('result.json', 'w').write('{\"status\": \"failed\", \"reason\": \"\\ud800 no\"}')",
        "infrastructure",
        "\\ud800 no",
    ),
    "half a character as label": (r"open('result.json', 'w').write('{\"label\": \"\\ud800\"}')", "refused", ""),
    "no class": ("print('pink')", "refused", "pink"),
    "null": ("json.dump({'label': None}, open('result.json', 'w'))", "infrastructure", "no label, and no status"),
}


def test_failures_are_told_with_their_kinds(tmp_path):
    """The cases are samples of one run."""
    cases = dict(enumerate(FAILURES.values(), start=2))
    command = switch(tmp_path, {sample: body for sample, (body, _, _) in cases.items()})
    parameters = {"infeasible_exits": [3], "max_result_bytes": 10**5, "max_in_flight": 2}
    ran, labeled = run(tmp_path, command, list(cases), pool=colors(), settings={"max_failure_rate": 1.0}, **parameters)
    assert labeled == []
    sample_of = {request["id"]: request["sample"] for request in ran.requests()}
    told = {sample_of[refusal["request"]]: (refusal["kind"], refusal["reason"]) for refusal in ran.refused()}
    for sample, (_, kind, reason) in cases.items():
        assert told[sample][0] == kind, told[sample]
        assert reason in told[sample][1]


@pytest.mark.parametrize("content", ['{"code": 1e999', '{"code": 0, "seconds": NaN', "[" * 50000])
def test_damaged_marker_counts_as_none(tmp_path, content):
    (tmp_path / "done.json").write_text(f'{content}, "seconds": 1.0, "timed_out": false, "reason": ""}}')
    if "NaN" in content:
        (tmp_path / "done.json").write_text(f'{content}, "timed_out": false, "reason": ""}}')
    assert read_done(tmp_path) is None


def test_program_that_cant_be_executed_is_a_failure_and_costs_nothing(tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    ran, _ = run(tmp_path, str(path), [9])
    ((kind, reason),) = reasons(ran)
    assert kind == "infrastructure"
    assert "could not be run" in reason
    assert ran.refused()[0]["cost"] == 0


def test_timeout_ends_all_processes_of_the_program(tmp_path):
    command = shell(tmp_path, "sleep 60 & echo 1; sleep 60; echo 2")
    ran, _ = run(tmp_path, command, [9], timeout=0.3)
    ((kind, reason),) = reasons(ran)
    assert kind == "timeout"
    assert "after 0.3" in reason
    assert running_in([folder_of(ran)]) == {}


def test_retry_has_a_folder_of_its_own(tmp_path):
    command = program(
        tmp_path, "if os.environ['ALCORE_ATTEMPT'] == '0': json.dump({'status': 'failed'}, open('result.json', 'w'))\n"
        "else: print(1)",
    )  # fmt: skip
    ran, labeled = run(tmp_path, command, [9], settings={"label_retries": 1})
    assert [int(target) for _, target in labeled] == [1]
    assert (folder_of(ran) / "result.json").exists()
    assert not (folder_of(ran, attempt="attempt-1") / "result.json").exists()


def test_costs_are_what_the_program_says_else_its_seconds_or_what_was_expected(tmp_path):
    says = program(tmp_path, "json.dump({'label': 1, 'cost': 2.5}, open('result.json', 'w'))", "says")
    ran, _ = run(tmp_path, says, [9], settings={"run_id": "a"})
    assert ran.requests()[0]["cost"] == 2.5
    ran, _ = run(tmp_path, "echo 1", [9], settings={"run_id": "b"})
    assert ran.requests()[0]["cost"] == 1.0
    ran, _ = run(tmp_path, shell(tmp_path, "sleep 0.2; echo 1"), [9], cost="seconds", settings={"run_id": "c"})
    assert 0.2 <= ran.requests()[0]["cost"] < 5


def test_folders_of_successes_are_removed_where_only_failures_are_kept(tmp_path):
    ran, _ = run(tmp_path, shell(tmp_path, '[ "$ALCORE_SAMPLE" = 2 ] || echo 1'), keep="failures")
    assert [folder_of(ran, place).parent.exists() for place in range(4)] == [False, True, False, False]


# -- batches ---------------------------------------------------------------------------------------------------

BATCH = """
    asked = json.load(open(sys.argv[1]))
    open(os.environ["LEDGER"], "a").write(f"{len(asked)}\\n")
    assert np.load("input.npz")["input"].shape == (len(asked), 4)
    answers = [{"label": request["sample"] % 3, "cost": request["sample"]} for request in asked]
"""


@pytest.mark.parametrize(
    "end",
    [
        "json.dump(answers, open('result.json', 'w'))",
        "print([answer['label'] for answer in answers])",
        "np.savez('result.npz', label=[answer['label'] for answer in answers])",
        "json.dump({'label': [answer['label'] for answer in answers]}, open('result.json', 'w'))",
    ],
)
def test_batch_is_answered_by_one_call(tmp_path, end):
    command = program(tmp_path, textwrap.dedent(BATCH) + end)
    env = {"LEDGER": str(tmp_path / "ledger")}
    ran, labeled = run(tmp_path, f"{command} {{requests}}", batch=3, env=env)
    assert [int(target) for _, target in labeled] == [0, 2, 0, 2]
    assert (tmp_path / "ledger").read_text() == "3\n1\n"
    if end.startswith("json.dump(answers"):
        assert [request["cost"] for request in ran.requests()] == [9, 2, 30, 17]


def test_batch_of_the_wrong_length_is_refused_as_a_whole(tmp_path):
    ran, labeled = run(tmp_path, "echo '[1, 1]'", batch=4)
    assert labeled == []
    assert {kind for kind, _ in reasons(ran)} == {"infrastructure"}
    assert all("a list with an answer for each of the 4 requests" in reason for _, reason in reasons(ran))


# -- interruptions ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def resumed(folder, command, steps=1, label_retries=0, **parameters):
    driver = build_driver(
        folder / "runs", Asks(), pool=toy_pool("classes"), label=CommandLabelStrategy(command, **parameters),
        skip_training=True, max_active_learning_steps=steps, run_id="r", label_retries=label_retries,
    )  # fmt: skip
    driver.restore()
    driver.run()
    return Run(driver.log_dir)


@pytest.mark.parametrize("parameters", [{}, {"batch": 4}], ids=["one", "batch"])
def test_finished_program_is_not_run_again(tmp_path, monkeypatch, parameters):
    """The driver is cut off between the end of the program and the commit of its answer."""
    ledger = tmp_path / "ledger"
    answer = "echo '[1, 1, 1, 1]'" if parameters else "echo 1"
    command = shell(tmp_path, f"echo $ALCORE_REQUEST >> {ledger}; {answer}")

    def cut(*_args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CommandLabelStrategy, "deliver", cut)
        with pytest.raises(Killed):
            run(tmp_path, command, settings={"run_id": "r"}, **parameters)
    ran = resumed(tmp_path, command, **parameters)
    assert {request["state"] for request in ran.requests()} == {"labeled"}
    called = ledger.read_text().split()
    assert len(called) == len(set(called)) == (1 if parameters else 4)


@pytest.mark.parametrize("parameters", [{}, {"batch": 4}], ids=["one", "batch"])
def test_program_whose_end_could_not_be_written_is_not_started_again(tmp_path, monkeypatch, parameters):
    """The disk is full: neither the marker of its end nor its answer is written. The attempt counts as one."""
    ledger = tmp_path / "ledger"
    answer = "echo '[1, 1, 1, 1]'" if parameters else "echo 1"
    command = shell(tmp_path, f"echo $ALCORE_REQUEST-$ALCORE_ATTEMPT >> {ledger}; {answer}")

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CommandLabelStrategy, "deliver", full)
        patch.setattr("alcore_labelers.attempts.DONE", "missing/done.json")
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, command, settings={"run_id": "r"}, **parameters)
    first = set(ledger.read_text().split())
    ran = resumed(tmp_path, command, label_retries=1, **parameters)
    assert {request["state"] for request in ran.requests()} == {"labeled"}
    called = ledger.read_text().split()
    assert len(called) == len(set(called))
    failed = {
        f"{refusal['request']}-0" for refusal in ran.refused() if "it is not known how it ended" in refusal["reason"]
    }
    assert failed >= first


def test_program_is_not_started_where_that_can_t_be_written(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alcore_labelers.command.begin", full)
    ran, _ = run(tmp_path, shell(tmp_path, f"touch {tmp_path}/called"), [9])
    assert [(refusal["kind"], "No space left" in refusal["reason"]) for refusal in ran.refused()] == [
        ("infrastructure", True)
    ]
    assert not (tmp_path / "called").exists()
    assert ran.requests()[0]["cost"] in (0, None)


def test_interruption_ends_programs_and_gives_requests_back(tmp_path):
    command = shell(tmp_path, "echo $$ >> pid; sleep 60")

    def interrupt():
        _appears(lambda: len(list(tmp_path.glob("runs/r/strategies/*/work/*/*/pid"))) == 3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, command, settings={"run_id": "r"}, max_in_flight=3)
    (work,) = (tmp_path / "runs" / "r" / "strategies").glob("*/work")
    folders = list(work.glob("*/attempt-0"))
    assert len(folders) == 3
    assert running_in(folders) == {}
    assert {request["state"] for request in resumed(tmp_path, "echo 1").requests()} == {"labeled"}


def test_program_of_a_killed_driver_is_ended_before_it_is_run_again(tmp_path):
    command = shell(tmp_path, "echo 1 > half; sleep 60")
    script = "import sys, pathlib; sys.path.insert(0, {!r}); import test_labelers_command as t; " + (
        "t.run(pathlib.Path({!r}), {!r}, settings={{'run_id': 'r'}})"
    )
    code = script.format(str(Path(__file__).parent), str(tmp_path), command)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as driver:
        try:
            (half,) = _appears(lambda: list(tmp_path.glob("runs/r/strategies/*/work/*/attempt-0/half")))
        finally:
            driver.kill()
    assert running_in([half.parent])
    ran = resumed(tmp_path, "sh -c 'ls > seen; echo 1'")
    assert running_in([half.parent]) == {}
    seen = half.parent.with_name("attempt-0-2") / "seen"  # an attempt is started once in its folder
    assert "half" not in seen.read_text().split()
    assert not (half.parent / "seen").exists()
    assert {request["state"] for request in ran.requests()} == {"labeled"}


def _appears(found):
    until = time.monotonic() + 20
    while not (paths := found()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return paths


def test_reopened_request_is_run_again(tmp_path):
    """One that was withdrawn keeps its attempt; its folder must not answer it."""
    once = tmp_path / "once"
    command = shell(
        tmp_path, f'if [ -e {once} ]; then echo 1; else echo \'{{"status": "withdrawn"}}\'; fi; touch {once}'
    )
    ran, _ = run(tmp_path, command, [9], settings={"run_id": "r"})
    (asked,) = ran.requests()
    assert asked["state"] == "failed"
    run_command(tmp_path, "labels", str(ran.folder), "--reopen", asked["id"])
    driver = build_driver(
        tmp_path / "runs", Asks([2]), pool=toy_pool("classes"), label=CommandLabelStrategy(command),
        skip_training=True, max_active_learning_steps=2, run_id="r",
    )  # fmt: skip
    driver.restore()
    driver.run()
    assert [request["state"] for request in Run(driver.log_dir).requests()] == ["labeled", "labeled"]


def test_folder_that_is_a_link_is_not_followed(tmp_path):
    ran, _ = run(tmp_path, "false", [9], settings={"run_id": "r", "label_retries": 0})
    folder, outside = folder_of(ran), tmp_path / "outside"
    outside.mkdir()
    for path in folder.parent.rglob("*"):
        path.chmod(stat.S_IRWXU)
    next_one = folder.with_name("attempt-1")
    next_one.symlink_to(outside)
    run_command(tmp_path, "labels", str(ran.folder), "--reopen", ran.requests()[0]["id"])
    with pytest.raises(UsageError, match="attempt-1 is a symbolic link"):
        resumed(tmp_path, "echo 1", steps=2)
    assert not list(outside.iterdir())


# -- the command -----------------------------------------------------------------------------------------------


def test_what_a_file_wants_to_run_needs_allow_code(tmp_path):
    first = run_command(
        tmp_path, "run", "--label", "command", "--set", "label.command.run=echo 1", "--steps", "1", "--run-id", "r"
    )
    assert first.code == 0, first.err
    refused = run_command(tmp_path, "resume", "r", "--steps", "2")
    assert refused.code == 2
    assert "add --allow-code to this command" in refused.err
    assert "--set 'label.command.run=echo 1'" in refused.err
    assert run_command(tmp_path, "resume", "r", "--steps", "2", "--allow-code").code == 0
    path = Path("active_learning_logs") / "r" / "experiment.toml"
    assert run_command(tmp_path, "run", str(path), "--run-id", "s").code == 2
