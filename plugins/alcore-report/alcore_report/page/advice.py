"""Cards: what a run shows that its user should know of, with the numbers, and what to try."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np

from alcore_report.page.facts import Facts, command_name
from alcore_report.page.samples import Samples, calibration_error, is_field, regression_values

_SCORED = 5  # scores of one step that can be called alike
_ALIKE = 1e-6  # of their size
_PICKS = 20  # picks of which one class can be said to be most
_ONE_CLASS = 0.9
_MISCALIBRATED = 0.1
_MEASURED = 100  # samples that a calibration error needs
_FAILING = 0.1
_FLAT = 0.05  # of what was gained


@dataclasses.dataclass(frozen=True)
class Card:
    """One piece of advice.

    Parameters
    ----------
    key
        Names its kind.
    title
        What is the matter.
    seen
        The numbers that say so.
    means
        Why it matters.
    tries
        What to try: a sentence, and the command or flag, which may be empty.
    """

    key: str
    title: str
    seen: str
    means: str
    tries: tuple[tuple[str, str], ...]


def advice(facts: Facts, samples: Samples) -> list[Card]:
    """Return the cards of a run, the most serious first."""
    found = (
        _failing_labels(facts),
        _no_better_than_chance(facts, samples),
        _nothing_measured(facts),
        _scores_alike(facts),
        _one_class(facts, samples),
        _duplicates(facts, samples),
        _miscalibrated(facts, samples),
        _plateau(facts),
    )
    return [card for card in found if card is not None]


def _again(facts: Facts, flags: str) -> str:
    """Return a command that runs the experiment with other flags; the flags alone where no command can run it."""
    if facts.python:
        return flags
    return f"alcore run {command_name(facts.run.folder / 'experiment.toml')} {flags}"


def _failing_labels(facts: Facts) -> Card | None:
    failures = sum(one["kind"] not in ("refused", "repeat") for one in facts.refused)
    rejected = sum(one["kind"] == "refused" for one in facts.refused)
    bad, answers = failures + rejected, len(facts.labeled) + failures + rejected
    if bad < 3 or bad < _FAILING * answers:
        return None
    cost = math.fsum(one["cost"] or 0.0 for one in facts.refused)
    most = next(iter(facts.reasons), None)
    often = "" if most is None else f" The most frequent reason, {most['count']} times: {_cut(most['reason'])}."
    paid = f" These attempts cost {cost:g}." if cost else ""
    name = command_name(facts.run.folder)
    lost = next((one["id"][:12] for one in facts.requests if one["state"] == "failed"), "REQUEST")
    reopen = f"alcore labels {name} --reopen {lost}"
    return Card(
        "failing-labels",
        "Labels fail",
        f"{bad} of {answers} answers ({bad / answers:.0%}) were no labels: {failures} failed attempts and {rejected} "
        f"refused answers; {facts.given_up} requests were given up.{often}{paid}",
        "Samples that can't be labeled are missing from the training set, and they are often of one kind, so the "
        "learner gets to know the rest only.",
        (
            ("See each request without a label, with its reason:", f"alcore labels {name}"),
            ("Once the cause is fixed, ask for one again, and go on:", reopen),
            ("Let a failed request be tried again in the run:", "--set driver.label_retries=2"),
        ),
    )


def _no_better_than_chance(facts: Facts, samples: Samples) -> Card | None:
    r2 = facts.last("r2")
    spread: float | None = None
    if samples.predictions is not None and samples.info is not None and samples.info.task == "regression":
        values = regression_values(samples.predictions)
        targets = samples.predictions.targets.astype(np.float64)
        if r2 is None and values is not None and not is_field(samples.predictions):
            spread = float(((targets - targets.mean(axis=0)) ** 2).sum())
            r2 = 1 - float(((values - targets) ** 2).sum()) / spread if spread > 0 else None
    if r2 is not None:
        if not r2 <= 0.02:
            return None
        return Card(
            "no-better-than-chance",
            "The learner is no better than the mean",
            f"At the end R2 is {r2:.3f}. A constant, the mean of the targets, has R2 0.",
            "A strategy that asks such a learner chooses by noise.",
            (
                ("Train longer in each step:", _again(facts, "--set training.max_training_epochs=200")),
                ("Begin each step from new weights:", _again(facts, "--set training.reset_learner=true")),
                ("Start from more labels, or see whether another learner copes:", "alcore plugins"),
            ),
        )
    accuracy, share, of = facts.last("accuracy"), samples.pool_share, ""
    if share is None and (found := facts.last_entry("confusion")) is not None:
        counts = np.array(found["confusion"], dtype=np.float64).sum(axis=1)
        share = counts / counts.sum() if counts.sum() else None
    if share is None and (found := facts.last_entry("per_class")) is not None:
        counts = np.array([one.get("samples", 0) for one in found["per_class"]], dtype=np.float64)
        share = counts / counts.sum() if counts.sum() else None
    if accuracy is None or share is None or not len(share) or accuracy > float(share.max()) + 0.01:
        return None
    of = samples.class_name(int(share.argmax()))
    return Card(
        "no-better-than-chance",
        "The learner is no better than the majority class",
        f"At the end accuracy is {accuracy:.3f}. Who always answers {of} is right in {float(share.max()):.3f} of the "
        "samples that are measured on.",
        "A strategy that asks such a learner chooses by noise.",
        (
            ("Let rare classes count for more in training:", _again(facts, "--set training.class_weights=balanced")),
            ("Train longer in each step:", _again(facts, "--set training.max_training_epochs=100")),
            (
                "Choose samples without asking the learner, until it has learned something:",
                _again(facts, "--query kcenter"),
            ),
        ),
    )


def _scores_alike(facts: Facts) -> Card | None:
    groups: dict[tuple[int, str], list[float]] = {}
    for one in facts.requests:
        if one["score"] is not None:
            groups.setdefault((one["step"], one["strategy"]), []).append(float(one["score"]))
    scored = {key: scores for key, scores in groups.items() if len(scores) >= _SCORED}
    alike = [key for key, scores in scored.items() if max(scores) - min(scores) <= _ALIKE * max(map(abs, scores))]
    if not alike or len(alike) * 2 < len(scored):
        return None
    names = sorted({strategy for _, strategy in alike})
    step, strategy = alike[-1]
    return Card(
        "scores-alike",
        "The scores are all alike",
        f"In {len(alike)} of {len(scored)} queries all picks had the same score; in step {step}, "
        f"{len(scored[step, strategy])} picks of {strategy} had the score {scored[step, strategy][0]:.4g}.",
        f"{' and '.join(names)} could not tell samples apart, so the picks are arbitrary. Often the learner is sure of "
        "everything (its outputs saturate), or has learned nothing yet.",
        (
            ("Choose by how samples lie, not by the learner's outputs:", _again(facts, "--query kcenter")),
            (
                "Train for fewer epochs, so that outputs don't saturate:",
                _again(facts, "--set training.max_training_epochs=5"),
            ),
            ("Compare with random choice, which costs nothing:", _benchmark(facts)),
        ),
    )


def _benchmark(facts: Facts) -> str:
    queries = facts.parts.get("query", [])
    flags = f"--query {'+'.join(queries)} --query random --seeds 10" if queries else "--query random --seeds 10"
    return flags if facts.python else f"alcore benchmark {command_name(facts.run.folder / 'experiment.toml')} {flags}"


def _one_class(facts: Facts, samples: Samples) -> Card | None:
    if len(samples.classes) < _PICKS:
        return None
    code, count = Counter(samples.classes.values()).most_common(1)[0]
    part, share = count / len(samples.classes), samples.pool_share
    usual = float(share[code]) if share is not None and code < len(share) else None
    if part < _ONE_CLASS or (usual is not None and part < usual + 0.15):
        return None
    name = samples.class_name(code)
    known = "" if usual is None else f" Of the samples that are measured on, {usual:.0%} are of it."
    return Card(
        "one-class",
        "Nearly all picks are of one class",
        f"{count} of {len(samples.classes)} labeled picks ({part:.0%}) are of class {name}.{known}",
        "The learner sees little else, and what it can't tell apart stays so.",
        (
            ("Spread each step over the classes that the learner predicts:", _again(facts, "--query class-balanced")),
            ("Choose samples that differ from each other too:", _again(facts, "--query badge")),
            ("Show rare classes as often as others in training:", _again(facts, "--set training.sampler=balanced")),
        ),
    )


def _duplicates(facts: Facts, samples: Samples) -> Card | None:
    if samples.repeats is None:
        return None
    repeats, count = samples.repeats
    if repeats < max(2, 0.01 * count):
        return None
    return Card(
        "duplicates",
        "Labels are bought twice",
        f"{repeats} of {count} picks ({repeats / count:.0%}) have exactly the input of a sample that was labeled or "
        "picked before.",
        "A second label of the same input teaches little, unless answers are noisy.",
        (
            ("Remove equal rows from the data before the run.", ""),
            ("Choose samples that differ within a step:", _again(facts, "--query kcenter")),
            ("Ask for fewer samples at a time, so that each pick knows of the last ones:", _smaller_steps(facts)),
        ),
    )


def _smaller_steps(facts: Facts) -> str:
    sizes = [one["requested"] for one in facts.steps if one["requested"]]
    size = max(1, (max(sizes) if sizes else 10) // 2)
    return _again(facts, f"--set driver.samples_per_step={size}")


def _miscalibrated(facts: Facts, samples: Samples) -> Card | None:
    error, count = facts.last("ece"), 0
    entry = facts.last_entry("ece")
    if error is not None and entry is not None:
        count = int(entry.get("samples", 0))
    elif (known := samples.predictions) is not None and samples.info is not None:
        if samples.info.task != "classification":
            return None
        error, count = calibration_error(known), len(known.targets)
    if error is None or count < _MEASURED or not error > _MISCALIBRATED:
        return None
    return Card(
        "miscalibrated",
        "Its confidence can't be believed",
        f"At the end the calibration error is {error:.3f}, on {count} samples: on average, confidence and accuracy "
        f"differ by {error:.0%}.",
        "Strategies that choose by uncertainty rank samples by this confidence, and users of predictions are misled.",
        (
            (
                "Train for fewer epochs, or with weight decay:",
                _again(facts, "--set training.optimizer.weight_decay=0.01"),
            ),
            ("Choose by how samples lie instead:", _again(facts, "--query kcenter")),
        ),
    )


def _plateau(facts: Facts) -> Card | None:
    if not facts.metrics:
        return None
    metric = facts.metrics[0]
    curve = [one for one in facts.curve(metric) if one[1] is not None]
    if len(curve) < 9:
        return None
    sign = -1 if facts.lower(metric) else 1
    values = np.array([sign * value for _, _, value in curve])
    if sign < 0 and values.max() < 0:  # an error may still fall by half where it is small beside the first one
        values = -np.log(-values)
    third = len(values) - len(values) // 3
    before, gained = float(values[:third].max()), float(values.max() - values[0])
    late = float(values[third:].max()) - before
    if gained <= 0 or late > _FLAT * gained:
        return None
    near = int(np.argmax(values >= values.max() - _FLAT * gained))
    step, at, value = curve[near]
    last = curve[-1]
    spent = (last[1] or 0) - (at or 0)
    if spent <= 0:
        return None
    name, on = facts.short(metric), metric.rpartition(".")[2]
    patience = max(3, len(values) // 6)
    change = f"--stop plateau --set stop.plateau.name={on} --set stop.plateau.patience={patience}"
    larger = (
        ("See whether a larger network makes use of the labels:", _again(facts, "--set learner.mlp.hidden=[64,64]"))
        if facts.parts.get("learner") == ["mlp"]
        else ("See whether a larger learner makes use of the labels.", "")
    )
    return Card(
        "plateau",
        "More labels change little",
        f"{name} was {value:.4g} at {at} labels (step {step}), and is {last[2]:.4g} at {last[1]}: the last {spent} "
        f"labels brought less than {_FLAT:.0%} of all that was gained.",
        "The learner, not the labels, may be what limits it now.",
        (
            ("End such a run by itself:", _again(facts, change)),
            larger,
            ("See what all labels would bring:", f"{_benchmark(facts)} --ceiling"),
        ),
    )  # fmt: skip


def _nothing_measured(facts: Facts) -> Card | None:
    if facts.metrics or not facts.steps:
        return None
    return Card(
        "nothing-measured",
        "Nothing was measured",
        f"The run has {len(facts.steps)} finished steps and no metric.",
        "Nobody can say whether the labels were worth their cost.",
        (("Measure in each step:", _again(facts, "--metrology classification")),),
    )


def _cut(text: str, most: int = 200) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= most else f"{one_line[:most]}…"
