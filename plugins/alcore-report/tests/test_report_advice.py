"""Each card appears in a run that has its fault, and not in one that hasn't."""

import ast
import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from alcore_report.page.advice import advice, review
from alcore_report.page.facts import Facts
from alcore_report.page.samples import SamplePredictions, Samples

from alcore import config as c
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


SETTINGS = """
[driver]
fine_tuning_lr = 0.005
[training]
max_training_epochs = 10
max_fine_tuning_epochs = 5
[training.optimizer]
cls = "SGD"
lr = 0.01
[learner.mlp]
hidden = [16]
[query.uq]
"""


def facts(*, requests=(), records=(), refused=(), given_up=0, parts=None, experiment=SETTINGS, meta=None):
    steps = [
        {"step": i, "train_samples": 10 + 10 * i, "requested": 10, "seconds": {"training": 1.0}} for i in range(12)
    ]
    reasons = [{"kind": "timeout", "reason": refused[0]["reason"], "count": len(refused)}] if refused else []
    metrology = [{"step": i, "train_samples": 10 + 10 * i, "on": "pool", **one} for i, one in enumerate(records)]
    run = SimpleNamespace(folder=Path("active_learning_logs/r"))
    return Facts(
        run, {"status": "done", **(meta or {})}, parts or {"query": ["uq"], "learner": ["mlp"]}, False, experiment,
        steps,
        {"m": metrology} if metrology else {}, list(requests), list(refused), reasons, 0, given_up,
    )  # fmt: skip


def failed(count):
    return [
        {"step": 0, "request": f"r{i}", "kind": "timeout", "item": "1", "reason": "no license", "cost": 2.0}
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
        INFO, predictions=SamplePredictions("validation", targets, np.tile([confidence, 1 - confidence], (200, 1)), 200)
    )


def of_regression(scale):
    targets = np.random.default_rng(0).normal(size=200)
    return Samples(DataInfo("regression"), predictions=SamplePredictions("validation", targets, targets * scale, 200))


SHARE = Samples(INFO, pool_share=np.array([0.7, 0.3]))
NOTHING = Samples()
CURVE = (0.1, 0.5, 0.8, 0.9, 0.9, 0.9, 0.901, 0.9, 0.9, 0.9)
CASES = {
    "failing-labels": (
        (facts(requests=[request(i, labeled=i >= 8) for i in range(20)], refused=failed(8), given_up=8), NOTHING),
        (facts(requests=[request(i) for i in range(40)], refused=failed(2)), NOTHING),
        ["8 of 20 requests (40%) were given up", "8 were failures", "no license", "cost 16"],
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
        ["confidence is 95% and its accuracy 60%, on 200 samples", "calibration error is 0.350"],
    ),
    "miscalibrated the other way": (
        (facts(), confident(0.6, 0.9)),
        (facts(), confident(0.85, 0.9)),
        ["confidence is 60% and its accuracy 90%"],
    ),
    "plateau": (
        (measured("f1", *CURVE), NOTHING),
        (measured("f1", *np.linspace(0.1, 0.9, 10).tolist()), NOTHING),
        ["f1 was 0.9 at 40 labels (step 3)", "is 0.9 at 100", "last 60 labels"],
    ),
    "plateau of an error": (
        (measured("rmse", *(1 / value for value in CURVE)), NOTHING),
        (measured("rmse", *(2.0**-i for i in range(10))), NOTHING),
        ["rmse was 1.111 at 40 labels"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_card_appears_with_its_numbers_where_it_must_and_only_there(name):
    bad, good, words = CASES[name]
    key = name.split()[0]
    card = next(card for card in advice(*bad) if card.key == key)
    for part in words:
        assert part in card.seen
    assert card.tries
    assert key not in {card.key for card in advice(*good)}


@pytest.mark.parametrize("name", CASES)
def test_every_flag_of_a_card_is_accepted_by_the_experiment_that_it_is_for(name):
    for card in advice(*CASES[name][0]):
        for _, command in card.tries:
            words = command.split()
            if words[:2] not in (["alcore", "run"], ["alcore", "benchmark"], ["alcore", "resume"]):
                continue
            experiment = Experiment()
            experiment.complete()
            flags = iter(words[3:])
            for flag in flags:
                if flag in ("--query", "--metrology", "--stop"):
                    experiment.choose(flag[2:], next(flags).split("+"))
                elif flag == "--set":
                    experiment.set(next(flags))
                elif flag in ("--seeds", "--steps", "--name"):
                    next(flags)
                else:
                    assert flag == "--ceiling"
            resolve(experiment, installed())


def test_a_run_without_faults_has_no_card_and_says_what_was_checked():
    run = measured("f1", *np.linspace(0.1, 0.9, 10).tolist())
    outcome = review(run, classes(20, 10))
    assert outcome.cards == []
    assert outcome.sound == [
        "at most 67% of the picks are of one class",
        "f1 got better in the last third of the run, to 0.9",
    ]


def python_run(run):
    """The same run, as if it was built in Python."""
    table = "[python.training]\nmax_training_epochs = 10\nmax_fine_tuning_epochs = 5\noptimizer = 'AdamW'\n"
    return dataclasses.replace(
        run, python=True, experiment=f"{table}[python.training.optimizer_kwargs]\nlr = '0.002'\n"
    )


PYTHON = [(name, key) for name in CASES for key in [name.split()[0]]]


@pytest.mark.parametrize(("name", "key"), PYTHON)
def test_of_a_run_that_was_built_in_python_a_card_gives_fields_of_configurations(name, key):
    run, samples = CASES[name][0]
    card = next(card for card in advice(python_run(run), samples) if card.key == key)
    for _, command in card.tries:
        if command.startswith("alcore labels"):  # such a run can be listed
            continue
        for call in command.split("; ") if command else []:
            parsed = ast.parse(call, mode="eval").body
            fields = {field.name for field in dataclasses.fields(getattr(c, parsed.func.id))}
            assert fields >= {keyword.arg for keyword in parsed.keywords}


@pytest.mark.parametrize("decay", [None, 0.01, 0.1])
def test_weight_decay_is_advised_above_the_value_that_the_run_has(decay):
    settings = '[training]\n[training.optimizer]\ncls = "AdamW"\n'  # of which the default is 0.01
    run = facts(experiment=settings if decay is None else f"{settings}weight_decay = {decay}\n")
    (card,) = (card for card in advice(run, confident(0.95, 0.6)) if card.key == "miscalibrated")
    commands = [command for _, command in card.tries]
    (value,) = (
        float(command.partition("weight_decay=")[2].split()[0]) for command in commands if "weight_decay" in command
    )
    assert value == pytest.approx(10 * (0.01 if decay is None else decay))


@pytest.mark.parametrize("query", ["kcenter", "class-balanced", "random"])
def test_no_card_advises_the_query_strategy_that_the_run_has(query):
    parts = {"query": [query], "learner": ["mlp"]}
    run = facts(requests=[request(i, score=1.0) for i in range(40)], parts=parts)
    samples = dataclasses.replace(classes(39, 1), repeats=(9, 40))
    commands = [command for card in advice(run, samples) for _, command in card.tries]
    assert commands
    assert not any(f"--query {query} " in f"{command} " for command in commands)


def test_direction_of_a_calibration_error_decides_what_is_advised():
    for confidence, right, more in ((0.95, 0.6, False), (0.6, 0.95, True)):
        (card,) = (card for card in advice(facts(), confident(confidence, right)) if card.key == "miscalibrated")
        words = " ".join(command for _, command in card.tries)
        assert ("max_training_epochs=100" in words) == more
        assert ("max_training_epochs=2" in words) == ("weight_decay" in words) == (not more)


def test_calibration_error_of_unknown_direction_gives_no_card():
    run = measured("ece", 0.3, samples=500)
    assert "miscalibrated" not in keys(advice(run, NOTHING))
    outputs = np.repeat([[0.95, 0.05], [0.55, 0.45]], 100, axis=0)  # too sure of some, and not sure enough of others
    targets = np.repeat([0, 1, 0], [55, 45, 100])
    mixed = Samples(INFO, predictions=SamplePredictions("validation", targets, outputs, 200))
    assert keys(advice(facts(), mixed)) == {"nothing-measured"}


def keys(cards):
    return {card.key for card in cards}


RISING = [9e6, 8e6, 7e6, 6e6, 5.112e6, 5.2e6, 5.21e6, 5.22e6, 5.23e6, 5.24e6]  # the best value, and worse ones after it
NO_PLATEAU = {
    "an error that rose": ("rmse", [*RISING[:-1], 7e6]),
    "an error that rose for long": ("rmse", [*RISING[:5], *[6.5e6] * 5]),
    "a score that fell": ("f1", [0.1, 0.5, 0.8, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7]),
    "an error that never fell": ("rmse", np.linspace(5e6, 6e6, 10).tolist()),
    "an error that halves": ("rmse", [2.0**-i for i in range(10)]),
}


@pytest.mark.parametrize("name", NO_PLATEAU)
def test_a_curve_that_is_not_flat_is_no_plateau(name):
    metric, values = NO_PLATEAU[name]
    outcome = review(measured(metric, *values), NOTHING)
    assert "plateau" not in keys(outcome.cards)
    assert any("got better" in words for words in outcome.sound) == (name == "an error that halves")


@pytest.mark.parametrize("values", [RISING, [1 / value for value in CURVE], [10.0, 1.0, *[0.99] * 8]])
def test_what_a_plateau_says_of_its_gain_holds(values):
    cards = advice(measured("rmse", *values), NOTHING)
    for card in cards:
        start, end = (float(re.search(pattern, card.seen)[1]) for pattern in (r"was ([\d.e+]+)", r"is ([\d.e+]+)"))
        assert start - end <= 0.05 * (values[0] - min(values))
        assert end - start <= 0.05 * (values[0] - min(values))


def test_at_its_best_value_a_score_is_not_limited_by_the_learner():
    run = measured("accuracy", 0.5, 0.8, *[1.0] * 8)
    (card,) = (card for card in advice(with_labels(run, "id"), NOTHING) if card.key == "plateau")
    assert "hardly anything left" in card.means
    assert [command.split()[3] for _, command in card.tries] == ["--stop"]


def with_labels(run, kind):
    return dataclasses.replace(run, requests=[{**request(i), "kind": kind} for i in range(100)])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["label", None])
def test_where_labels_do_not_exist_yet_no_command_asks_for_them_again(name, kind):
    run, samples = CASES[name][0]
    requests = [{**entry, "kind": entry["kind"] and kind} for entry in run.requests]
    run = dataclasses.replace(run, requests=requests or with_labels(run, kind).requests)
    for card in advice(run, samples):
        assert not any(command.startswith(("alcore run", "alcore benchmark")) for _, command in card.tries)


def test_where_the_pool_knows_its_answers_the_ceiling_is_advised():
    (card,) = advice(with_labels(measured("f1", *CURVE), "id"), NOTHING)
    (command,) = (command for _, command in card.tries if "--ceiling" in command)
    assert command.startswith(
        "alcore benchmark active_learning_logs/r/experiment.toml --name r-benchmark --query uq --query random"
    )


def test_failures_that_were_retried_until_there_was_a_label_are_no_advice():
    run = facts(requests=[request(i) for i in range(20)], refused=failed(8))
    assert "failing-labels" not in keys(advice(run, NOTHING))


@pytest.mark.parametrize(("info", "name"), [
    ({"task": "classification"}, "classification"),
    ({"task": "regression"}, "regression"),
    ({"task": "regression", "target_shape": [5, 6]}, "fields"),
])  # fmt: skip
def test_what_is_measured_fits_the_task(info, name):
    run = with_labels(facts(meta={"info": info}), "id")
    (card,) = (card for card in advice(run, NOTHING) if card.key == "nothing-measured")
    assert [command.partition("--metrology ")[2] for _, command in card.tries] == [name]


def test_learners_that_are_fitted_at_once_are_not_trained_longer():
    parts = {"query": ["uq"], "learner": ["sklearn"], "loop": ["sklearn"]}
    for name in ("no-better-than-chance", "miscalibrated", "miscalibrated the other way"):
        run, samples = CASES[name][0]
        for card in advice(dataclasses.replace(run, parts=parts), samples):
            assert not any("epochs" in command or "optimizer" in command for _, command in card.tries)
