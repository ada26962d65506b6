"""Each card appears in a run that has its fault, and not in one that hasn't."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from alcore_report.page.advice import advice
from alcore_report.page.facts import Facts
from alcore_report.page.samples import Predictions, Samples

from alcore.experiment import Experiment, resolve
from alcore.plugins import installed
from alcore.pools import DataInfo

INFO = DataInfo("classification", 2, 2, (2,), ("a", "b"))


def request(place, *, score=None, labeled=True, item=None):
    return {
        "step": place // 10, "ordinal": place % 10, "id": f"r{place}", "sample": None if item else place, "slot": 0,
        "item": item, "strategy": "uq", "score": score, "state": "labeled" if labeled else "failed",
        "kind": "id" if labeled else None, "value": None, "file": None, "source": "", "cost": 1.0 if labeled else None,
    }  # fmt: skip


def facts(*, requests=(), records=(), refused=(), given_up=0, parts=None):
    steps = [
        {"step": i, "train_samples": 10 + 10 * i, "requested": 10, "seconds": {"training": 1.0}} for i in range(12)
    ]
    reasons = [{"kind": "timeout", "reason": refused[0]["reason"], "count": len(refused)}] if refused else []
    metrology = [{"step": i, "train_samples": 10 + 10 * i, "on": "pool", **one} for i, one in enumerate(records)]
    run = SimpleNamespace(folder=Path("active_learning_logs/r"))
    return Facts(
        run, {"status": "done"}, parts or {"query": ["uq"], "learner": ["mlp"]}, False, "", steps,
        {"m": metrology} if metrology else {}, list(requests), list(refused), reasons, 0, given_up,
    )  # fmt: skip


def failed(count):
    return [
        {"step": 0, "request": f"r{i}", "kind": "timeout", "item": "1", "reason": "no licence", "cost": 2.0}
        for i in range(count)
    ]


def scored(*scores):
    return facts(requests=[request(i, score=one) for i, one in enumerate(scores)])


def measured(name, *values, **others):
    return facts(records=[{name: value, **others} for value in values])


def classes(first, second):
    codes = [0] * first + [1] * second
    return Samples(INFO, classes={f"r{i}": code for i, code in enumerate(codes)}, pool_share=np.array([0.6, 0.4]))


def confident(confidence, right):
    """Predictions of 200 samples with this confidence, of which a share is right."""
    targets = np.array([0] * round(200 * right) + [1] * round(200 * (1 - right)))
    return Samples(
        INFO, predictions=Predictions("validation", targets, np.tile([confidence, 1 - confidence], (200, 1)), 200)
    )


def of_regression(scale):
    targets = np.random.default_rng(0).normal(size=200)
    return Samples(DataInfo("regression"), predictions=Predictions("validation", targets, targets * scale, 200))


SHARE = Samples(INFO, pool_share=np.array([0.7, 0.3]))
NOTHING = Samples()
CURVE = (0.1, 0.5, 0.8, 0.9, 0.9, 0.9, 0.901, 0.9, 0.9, 0.9)
CASES = {
    "failing-labels": (
        (facts(requests=[request(i, labeled=i >= 8) for i in range(20)], refused=failed(8), given_up=8), NOTHING),
        (facts(requests=[request(i) for i in range(40)], refused=failed(2)), NOTHING),
        ["8 of 20 answers (40%)", "8 requests were given up", "no licence", "cost 16"],
    ),
    "no-better-than-chance": (
        (measured("accuracy", 0.5, 0.69), SHARE),
        (measured("accuracy", 0.5, 0.8), SHARE),
        ["accuracy is 0.690", "answers a is right in 0.700"],
    ),
    "no-better-than-chance of a regression": (
        (measured("r2", -0.5, -0.1), NOTHING),
        (measured("r2", -0.5, 0.4), NOTHING),
        ["R2 is -0.100"],
    ),
    "no-better-than-chance by predictions": (
        (facts(), of_regression(-0.1)),
        (facts(), of_regression(0.8)),
        ["R2 is -0.2"],
    ),
    "no-better-than-chance by confusion": (
        (measured("accuracy", 0.75, confusion=[[75, 0], [25, 0]]), NOTHING),
        (measured("accuracy", 0.9, confusion=[[70, 5], [5, 20]]), NOTHING),
        ["right in 0.750"],
    ),
    "nothing-measured": ((facts(), NOTHING), (measured("f1", 0.5), NOTHING), ["12 finished steps"]),
    "scores-alike": (
        (scored(*[1.0] * 20), NOTHING),
        (scored(*np.linspace(0, 1, 20).tolist()), NOTHING),
        ["2 of 2 queries", "10 picks of uq had the score 1"],
    ),
    "one-class": ((facts(), classes(29, 1)), (facts(), classes(20, 10)), ["29 of 30", "class a", "60%"]),
    "duplicates": ((facts(), Samples(repeats=(5, 50))), (facts(), Samples(repeats=(0, 50))), ["5 of 50 picks (10%)"]),
    "miscalibrated": (
        (facts(), confident(0.95, 0.6)),
        (facts(), confident(0.65, 0.6)),
        ["calibration error is 0.350, on 200 samples"],
    ),
    "plateau": (
        (measured("f1", *CURVE), NOTHING),
        (measured("f1", *np.linspace(0.1, 0.9, 10).tolist()), NOTHING),
        ["f1 was 0.9 at 40 labels (step 3)", "is 0.9 at 100", "last 60 labels"],
    ),
    "plateau of an error": (
        (measured("rmse", *(1 / one for one in CURVE)), NOTHING),
        (measured("rmse", *(2.0**-i for i in range(10))), NOTHING),
        ["rmse was 1.111 at 40 labels"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_card_appears_with_its_numbers_where_it_must_and_only_there(name):
    bad, good, words = CASES[name]
    key = name.split()[0]
    card = next(one for one in advice(*bad) if one.key == key)
    for part in words:
        assert part in card.seen
    assert card.tries
    assert key not in {one.key for one in advice(*good)}


@pytest.mark.parametrize("name", CASES)
def test_every_flag_of_a_card_is_accepted_by_the_experiment_that_it_is_for(name):
    for card in advice(*CASES[name][0]):
        for _, command in card.tries:
            words = command.split()
            if words[:2] not in (["alcore", "run"], ["alcore", "benchmark"]):
                continue
            experiment = Experiment()
            experiment.complete()
            flags = iter(words[3:])
            for flag in flags:
                if flag in ("--query", "--metrology", "--stop"):
                    experiment.choose(flag[2:], next(flags).split("+"))
                elif flag == "--set":
                    experiment.set(next(flags))
                elif flag == "--seeds":
                    next(flags)
                else:
                    assert flag == "--ceiling"
            resolve(experiment, installed())


def test_a_run_without_faults_has_no_card():
    run = measured("f1", *np.linspace(0.1, 0.9, 10).tolist())
    assert advice(run, classes(20, 10)) == []


def test_of_a_run_that_was_built_in_python_only_the_flags_are_given():
    run = dataclasses.replace(measured("f1", *CURVE), python=True)
    (card,) = advice(run, NOTHING)
    assert not any(command.startswith("alcore") for _, command in card.tries)
