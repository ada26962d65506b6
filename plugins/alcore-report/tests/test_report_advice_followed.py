"""Each card on a run that is made so that its condition holds, and after its commands are followed as they are printed.

A row of `CASES` has the flags of the run, its card, what the card must say by the records of the run, and for each
command of the card the figure that it is to change, and the direction.
"""

import contextlib
import json
import re
import shlex
import shutil
from collections import Counter
from typing import NamedTuple

import pytest
from alcore_report import cells
from alcore_report.page.advice import advice
from alcore_report.page.facts import read_facts
from alcore_report.page.samples import find_samples
from alcore_testing import run_command

from alcore.store import Run

CODE = """
from pathlib import Path

import torch
from alcore import Data, DataInfo, TensorPool

def rows(inputs, targets, info, labeled=12):
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    inputs, targets = inputs[order], targets[order]
    whole = TensorPool(inputs, targets, labeled=range(len(inputs)), info=info)
    return Data(TensorPool(inputs, targets, labeled=range(labeled), info=info), whole, info=info)

def lopsided():  # the wide class has nearly all of the space
    inputs = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2.0])
    inputs[180:] = inputs[180:] * torch.tensor([0.15, 1.0]) - torch.tensor([2.5, 0.0])
    return rows(inputs, (torch.arange(300) >= 180).long(), DataInfo("classification", 2, 2, (2,), ("wide", "narrow")))

def copies():
    inputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).repeat(5, 1)
    return rows(inputs, (inputs.sum(1) > 0).long(), DataInfo("classification", 2, 2, (2,), ("a", "b")))

def line():
    inputs = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    return rows(inputs, -inputs.sum(1, keepdim=True), DataInfo("regression", 0, 2, (2,), target_shape=(1,)))

def answer(row):
    return [-float(row[0] + row[1])]

def fails_once(row):
    mark = Path("asked") / f"{float(row[0]):.6f}"
    if row[0] > 0.5 and not mark.exists() and not Path("fixed").exists():
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
        raise OSError("no license")
    return answer(row)
"""
MOONS = ["--set", "data.moons.samples=300", "--metrology", "classification"]
BOUGHT = ["--data", "advised_parts:line", "--query", "random", "--label", "function", "--metrology", "regression"]


def epochs(count):
    return ["--set", f"training.max_training_epochs={count}", "--set", f"training.max_fine_tuning_epochs={count}"]


def rate(value):
    return ["--set", f"training.optimizer.lr={value}", "--set", f"driver.fine_tuning_lr={value}"]


class Found(NamedTuple):
    """A run as a report reads it."""

    run: Run
    facts: object
    samples: object

    @property
    def last(self):
        """The last record of its only metrology strategy."""
        (records,) = self.run.records().values()
        return records[-1]

    def card(self, key):
        return next((card for card in advice(self.facts, self.samples) if card.key == key), None)


def read(folder):
    facts = read_facts(Run(folder))
    return Found(facts.run, facts, find_samples(facts, [], allow_code=True))


def given_up(found):
    return found.run.request_counts()["failed"] / len(found.run.requests())


def labels(found):
    return len(found.facts.labeled)


def metrics(found):
    return len(found.run.records())


def of_record(name):
    return lambda found: found.last[name]


def alike(found):
    groups = {}
    for request in found.run.requests():
        groups.setdefault(request["step"], set()).add(round(request["score"], 9))
    return sum(len(scores) == 1 for scores in groups.values()) / len(groups)


def most_of_one_class(found):
    counts = Counter(found.samples.classes.values())
    return max(counts.values()) / counts.total()


def repeats(found):
    count, of = found.samples.repeats
    return count / of


class Case(NamedTuple):
    """A run, its card, and the figures that the commands of the card change.

    Attributes
    ----------
    flags
        Of ``alcore run``.
    key
        The card.
    says
        What its figures must be, by the run.
    moves
        For each command, in their order: the figure, and 1 if it is to rise, -1 if it is to fall; None for a command
        that shows something; "next" for one that the next one goes on with.
    """

    flags: list
    key: str
    says: object
    moves: list


CASES = {
    "labels fail": Case(
        [*BOUGHT, "--set", "label.function.function=advised_parts:fails_once", "--set", "label.function.retries=0",
         "--set", "driver.max_failure_rate=1", "--steps", "3"],
        "failing-labels",
        lambda found: [f"{found.run.request_counts()['failed']} of {len(found.run.requests())} requests",
                       f"{len(found.run.refused())} were failures, and 0 were refused", "OSError: no license"],
        [None, "next", (given_up, -1), (given_up, -1)],
    ),
    "no better than the majority": Case(
        [*MOONS, "--steps", "4", *epochs(1)],
        "no-better-than-chance",
        lambda found: [f"accuracy is {found.last['accuracy']:.3f}", "answers 0 is right in 0.700"],
        [(of_record("accuracy"), 1)],
    ),
    "no better than the majority, fitted at once": Case(
        ["--set", "data.moons.samples=400", "--metrology", "classification", "--steps", "2", "--query", "random",
         "--learner", "sklearn", "--set", "learner.sklearn.estimator=KNeighborsClassifier",
         "--set", "learner.sklearn.parameters={n_neighbors=20}"],
        "no-better-than-chance",
        lambda found: [f"accuracy is {found.last['accuracy']:.3f}"],
        [(of_record("accuracy"), 1)],
    ),
    "no better than the mean, with bought labels": Case(
        [*BOUGHT, "--set", "label.function.function=advised_parts:answer", "--steps", "2", *epochs(1)],
        "no-better-than-chance",
        lambda found: [f"R2 is {found.last['r2']:.3f}"],
        [(of_record("r2"), 1)],
    ),
    "metrology is skipped": Case(
        [*MOONS, "--steps", "2", "--set", "driver.skip_metrology=true"],
        "nothing-measured",
        lambda found: [f"{len(found.run.steps())} finished steps and no metric"],
        [(metrics, 1)],
    ),
    "no metrology": Case(
        ["unmeasured.toml", "--steps", "2"],
        "nothing-measured",
        lambda found: [f"{len(found.run.steps())} finished steps and no metric"],
        [(metrics, 1)],
    ),
    "scores of a tree": Case(
        [*MOONS, "--learner", "sklearn", "--steps", "3",
         "--set", "learner.sklearn.estimator=DecisionTreeClassifier"],
        "scores-alike",
        lambda found: [f"In {round(alike(found) * 3)} of 3 queries", "10 picks of classifier_uq_query had the score"],
        [(alike, -1)],
    ),
    "one class": Case(
        ["--data", "advised_parts:lopsided", "--metrology", "classification", "--steps", "5", "--query", "kcenter"],
        "one-class",
        lambda found: [f"{round(most_of_one_class(found) * 50)} of 50 labeled picks", "of class wide", "60% are of it"],
        [(most_of_one_class, -1), (most_of_one_class, -1)],
    ),
    "copies": Case(
        ["--data", "advised_parts:copies", "--metrology", "classification", "--steps", "4"],
        "duplicates",
        lambda found: [f"{round(repeats(found) * 40)} of 40 picks ({repeats(found):.0%})"],
        [(repeats, -1)],
    ),
    "too sure": Case(
        [*MOONS, "--set", "data.moons.noise=0.6", "--steps", "4", "--set", "learner.mlp.hidden=[64,64]", *rate(0.3),
         *epochs(100)],
        "miscalibrated",
        lambda found: [f"its accuracy {found.last['accuracy']:.0%}, on 300", f"error is {found.last['ece']:.3f}"],
        [(of_record("ece"), -1), (of_record("ece"), -1)],
    ),
    "not sure enough": Case(
        [*MOONS, "--steps", "4"],
        "miscalibrated",
        lambda found: [f"its accuracy {found.last['accuracy']:.0%}, on 300", f"error is {found.last['ece']:.3f}"],
        [(of_record("ece"), -1)],
    ),
    "plateau": Case(
        ["--set", "data.moons.samples=400", "--steps", "20", *rate(0.3), "--set", "learner.mlp.hidden=[2]"],
        "plateau",
        lambda found: [f"is {found.last['f1']:.4g} at {found.last['train_samples']}"],
        [(labels, -1), (of_record("f1"), 1), None],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes the run of a case once."""
    base, runs = tmp_path_factory.mktemp("advised"), {}

    def make(name):
        if name not in runs:
            folder = base / name.replace(" ", "_").replace(",", "")
            folder.mkdir()
            (folder / "advised_parts.py").write_text(CODE)
            (folder / "unmeasured.toml").write_text("[data.moons]\nsamples = 200\n[metrology]\n")
            done = run_command(folder, "run", "--run-id", "mine", "--quiet", *CASES[name].flags)
            assert done.code == 0, done.err
            with contextlib.chdir(folder):
                runs[name] = folder, read(folder / "active_learning_logs" / "mine")
        return runs[name]

    return make


def follow(folder, command):
    """Call a command as it is printed, and return the run that it made or went on with."""
    logs = folder / "active_learning_logs"
    before = {path.name for path in logs.iterdir()}
    program, *words = shlex.split(command)
    assert program == "alcore"
    done = run_command(folder, *words)
    assert done.code == 0, done.err
    (name,) = {path.name for path in logs.iterdir()} - before or {"mine"}
    return logs / name


@pytest.mark.parametrize("name", CASES)
def test_card_appears_with_the_figures_of_the_run(made, name):
    _, run = made(name)
    card = run.card(CASES[name].key)
    assert card is not None
    for words in CASES[name].says(run):
        assert words in card.seen
    assert len([command for _, command in card.tries if command]) == len(CASES[name].moves)


COMMANDS = [(name, place) for name, case in CASES.items() for place in range(len(case.moves))]


@pytest.mark.parametrize(("name", "place"), COMMANDS)
def test_command_of_a_card_runs_as_printed_and_moves_its_figure(made, tmp_path, monkeypatch, name, place):
    origin, run = made(name)
    case = CASES[name]
    with contextlib.chdir(origin):
        commands = [command for _, command in run.card(case.key).tries if command]
    if case.moves[place] == "next":
        return  # followed with the next one
    folder = tmp_path / "copy"
    shutil.copytree(origin, folder)
    if "benchmark" in commands[place]:
        check_benchmark(folder, commands[place], monkeypatch)
        return
    if place and case.moves[place - 1] == "next":
        (folder / "fixed").touch()  # the cause of the failures, as the card says
        follow(folder, commands[place - 1])
    target = follow(folder, commands[place])
    if case.moves[place] is None:
        return
    figure, direction = case.moves[place]
    assert direction * (figure(read(target)) - figure(run)) > 0


def check_benchmark(folder, command, monkeypatch):
    """The benchmark is planned as it is printed; its runs, which take minutes, are left out."""

    def interrupted(these, *_others):
        assert len(these) == 30
        raise cells.CellsInterrupted

    monkeypatch.setattr(cells, "run_cells", interrupted)
    done = run_command(folder, *shlex.split(command)[1:])
    assert done.code == 130, done.err
    plan = json.loads((folder / "active_learning_logs" / "mine-benchmark" / "benchmark.json").read_text())
    assert (list(plan["arms"]), plan["ceiling"]) == (["uq", "random", "ceiling"], "ceiling")


def test_plateau_ends_where_its_card_says(made, tmp_path):
    origin, run = made("plateau")
    with contextlib.chdir(origin):
        sentence, command = run.card("plateau").tries[0]
    shutil.copytree(origin, tmp_path / "copy")
    target = follow(tmp_path / "copy", command)
    (end,) = re.findall(r"ended at (\d+) labels", sentence)
    steps = Run(target).steps()
    assert int(end) in {step["train_samples"] for step in steps[-2:]}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.flags[: len(BOUGHT)] == BOUGHT])
def test_no_card_buys_labels_again_that_were_bought(made, name):
    origin, run = made(name)
    with contextlib.chdir(origin):
        commands = [command for card in advice(run.facts, run.samples) for _, command in card.tries]
    assert any(commands)
    assert not any(command.startswith(("alcore run", "alcore benchmark")) for command in commands)
