"""Cards: what a run shows that its user should know of, with the numbers, and what to try."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from alcore_report.curves import lower_is_better
from alcore_report.page.facts import Facts, command_name
from alcore_report.page.remedies import Remedies, Try, present
from alcore_report.page.samples import Array, Samples, calibration_error, is_field, is_field_shape, regression_values

_GIVEN_UP = 3  # requests
_FAILING = 0.1  # of the requests that are decided
_SCORED = 5  # scores of one step that can be called alike
_ALIKE = 1e-6  # of their size
_PICKS = 20  # picks of which one class can be said to be most
_ONE_CLASS = 0.9
_ABOVE_USUAL = 0.15
_MISCALIBRATED = 0.1
_MEASURED = 100  # samples that a calibration error needs
_MEASUREMENTS = 9  # that a plateau needs
_FLAT = 0.05  # of what was gained
_FULL = 0.99  # of a score that is 1 at most
_RETRIES = 2


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
        What to try: a sentence, and the command, which is empty where none can be given.
    """

    key: str
    title: str
    seen: str
    means: str
    tries: tuple[Try, ...]


class Review(NamedTuple):
    """What was looked at in a run.

    Parameters
    ----------
    cards
        What is the matter, the most serious first.
    sound
        What was checked and gave no card, each with its figures. What could not be checked is in neither.
    """

    cards: list[Card]
    sound: list[str]


Finding = Card | str | None
"""A card; or in words what was found in order; or None where the run does not have what the check needs."""


def review(facts: Facts, samples: Samples) -> Review:
    """Check a run, and return the cards and what is in order."""
    remedies = Remedies(facts)
    checks: tuple[Callable[[Facts, Samples, Remedies], Finding], ...] = (
        _failing_labels,
        _no_better_than_chance,
        _nothing_measured,
        _scores_alike,
        _one_class,
        _duplicates,
        _miscalibrated,
        _plateau,
    )
    findings = [check(facts, samples, remedies) for check in checks]
    return Review(
        [finding for finding in findings if isinstance(finding, Card)],
        [finding for finding in findings if isinstance(finding, str)],
    )


def advice(facts: Facts, samples: Samples) -> list[Card]:
    """Return the cards of a run, the most serious first."""
    return review(facts, samples).cards


# -- labels ------------------------------------------------------------------------------------------------------


def _failing_labels(facts: Facts, _: Samples, remedies: Remedies) -> Finding:
    decided = sum(request["state"] != "open" for request in facts.requests)
    if not decided:
        return None
    if facts.given_up < _GIVEN_UP or facts.given_up < _FAILING * decided:
        return f"{decided - facts.given_up} of {decided} requests have a label"
    rejected = sum(refusal["kind"] in ("refused", "set aside") for refusal in facts.refused)
    failures = sum(refusal["kind"] != "repeat" for refusal in facts.refused) - rejected
    cost = math.fsum(refusal["cost"] or 0.0 for refusal in facts.refused)
    most = next(iter(facts.reasons), None)
    often = "" if most is None else f" The most frequent reason, {most['count']} times: {_cut(most['reason'])}."
    paid = f" What was no label cost {cost:g}." if cost else ""
    name = command_name(facts.run.folder)
    failed = [request["id"] for request in facts.requests if request["state"] == "failed"]
    lost = next(
        iter([*failed, *(refusal["request"] for refusal in facts.refused if refusal["kind"] == "set aside")]), ""
    )
    retries = int(remedies.table("driver").get("label_retries", 0)) + _RETRIES
    reopening = [
        ("Once the cause is fixed, ask for one of them again:", f"alcore labels {name} --reopen {lost[:12]}"),
        ("and go on, which hands it out again:", remedies.resume(remedies.steps + 1)),
    ]
    return Card(
        "failing-labels",
        "Labels fail",
        f"{facts.given_up} of {decided} requests ({facts.given_up / decided:.0%}) were given up. Of all answers, "
        f"{failures} were failures, and {rejected} were refused.{often}{paid}",
        "Samples that can't be labeled are missing from the training set. Where they are of one kind, the learner gets "
        "to know the rest only.",
        present(
            ("See each request without a label, with its reason:", f"alcore labels {name}"),
            *(reopening if lost and not facts.python else []),
            remedies.setting("Let a failed request be tried again in the run:", {"driver.label_retries": retries})
            if failures
            else None,
        ),
    )


# -- what the learner knows --------------------------------------------------------------------------------------


def _no_better_than_chance(facts: Facts, samples: Samples, remedies: Remedies) -> Finding:
    if (r2 := _r2(facts, samples)) is not None:
        return f"R2 is {r2:.3f}" if r2 > 0.02 else _chance(  # no better than the mean
            remedies,
            "The learner is no better than the mean",
            f"At the end R2 is {r2:.3f}. A constant, the mean of the targets, has R2 0.",
        )  # fmt: skip
    accuracy, share = facts.last("accuracy"), _share(facts, samples)
    if accuracy is None or share is None or not len(share):
        return None
    most, name = float(share.max()), samples.class_name(int(share.argmax()))
    if accuracy > most + 0.01:
        return f"accuracy is {accuracy:.3f}, and {most:.3f} of the samples are of the most frequent class"
    return _chance(
        remedies,
        "The learner is no better than the majority class",
        f"At the end accuracy is {accuracy:.3f}. Who always answers {name} is right in {most:.3f} of the samples that "
        "are measured on.",
    )


def _chance(remedies: Remedies, title: str, seen: str) -> Card:
    longer = remedies.epochs("Train longer in each step:", 10)
    return Card(
        "no-better-than-chance",
        title,
        seen,
        "A strategy that asks such a learner chooses by noise.",
        present(longer or remedies.more_labels("Go on with more labels:"))
        or (("See whether another learner copes.", ""),),
    )


def _r2(facts: Facts, samples: Samples) -> float | None:
    """Return the last R2, of the records or else of the predictions; None where there is none."""
    if (measured := facts.last("r2")) is not None:
        return measured
    predictions = samples.predictions
    if predictions is None or samples.info is None or samples.info.task != "regression" or is_field(predictions):
        return None
    if (values := regression_values(predictions)) is None:
        return None
    targets = predictions.targets.astype(np.float64)
    spread = float(((targets - targets.mean(axis=0)) ** 2).sum())
    r2 = 1 - float(((values - targets) ** 2).sum()) / spread if spread > 0 else math.nan
    return r2 if math.isfinite(r2) else None


def _share(facts: Facts, samples: Samples) -> Array | None:
    """Return the share of each class in what the learner is measured on; None where that is not known."""
    if samples.pool_share is not None:
        return samples.pool_share
    counts = np.zeros(0)
    if (entry := facts.last_entry("confusion")) is not None:
        counts = np.array(entry["confusion"], dtype=np.float64).sum(axis=1)
    elif (entry := facts.last_entry("per_class")) is not None:
        counts = np.array([of_class.get("samples", 0) for of_class in entry["per_class"]], dtype=np.float64)
    return counts / counts.sum() if counts.sum() else None


def _nothing_measured(facts: Facts, _: Samples, remedies: Remedies) -> Finding:
    if facts.metrics or not facts.steps:
        return None
    skipped = bool(remedies.table("driver").get("skip_metrology"))
    if facts.parts.get("metrology") and not skipped:
        return None  # it measures, but nothing that is a fraction
    return Card(
        "nothing-measured",
        "Nothing was measured",
        f"The run has {len(facts.steps)} finished steps and no metric.",
        "Nobody can say whether the labels were worth their cost.",
        present(
            remedies.setting("Don't skip metrology:", {"driver.skip_metrology": False})
            if skipped
            else _measuring(facts, remedies)
        ),
    )


def _measuring(facts: Facts, remedies: Remedies) -> Try:
    info = facts.meta.get("info") or {}
    shape, task = info.get("target_shape") or (), str(info.get("task", ""))
    is_of_fields = task == "regression" and is_field_shape(shape)
    name = "fields" if is_of_fields else task
    if not task:
        return "Measure in each step, with a metrology strategy.", ""
    if not remedies.repeatable or not remedies.offered("metrology", name):
        return f"Measure in each step of the next run, with the metrology strategy {name}.", ""
    return "Measure in each step:", remedies.again(f"--metrology {name}")


def _miscalibrated(facts: Facts, samples: Samples, remedies: Remedies) -> Finding:
    predictions = samples.predictions
    if predictions is None or samples.info is None or samples.info.task != "classification" or is_field(predictions):
        return None  # whether it is too sure or not sure enough is not known, and the remedies are opposite
    entry = facts.last_entry("ece")
    measured = None if entry is None or entry.get("on", predictions.on) != predictions.on else facts.last("ece")
    error = calibration_error(predictions) if measured is None else measured
    if len(predictions.targets) < _MEASURED:
        return None
    if error <= _MISCALIBRATED:
        return f"the calibration error is {error:.3f}"
    confidence = float(predictions.outputs.max(axis=1).mean())
    accuracy = float((predictions.outputs.argmax(axis=1) == predictions.targets.astype(np.int64).reshape(-1)).mean())
    if abs(confidence - accuracy) < error / 2:  # too sure of some samples, and not sure enough of others
        return None
    too_sure = confidence > accuracy
    tries = (
        present(
            remedies.weight_decay("Train with more weight decay:"),
            remedies.epochs("Train for fewer epochs:", 0.2),
        )
        if too_sure
        else present(remedies.more_training())
    )
    if not tries:
        return None
    return Card(
        "miscalibrated",
        "The learner is too sure" if too_sure else "The learner is not sure enough",
        f"At the end its mean confidence is {confidence:.0%} and its accuracy {accuracy:.0%}, on "
        f"{len(predictions.targets)} samples; the calibration error is {error:.3f}.",
        "Users of its probabilities are misled, and so are strategies that compare them with a threshold.",
        tries,
    )


# -- what was picked ---------------------------------------------------------------------------------------------


def _scores_alike(facts: Facts, _: Samples, remedies: Remedies) -> Finding:
    groups: dict[tuple[int, str], list[float]] = {}
    for request in facts.requests:
        if request["score"] is not None and math.isfinite(request["score"]):
            groups.setdefault((request["step"], request["strategy"]), []).append(float(request["score"]))
    scored = {key: scores for key, scores in groups.items() if len(scores) >= _SCORED}
    alike = [key for key, scores in scored.items() if max(scores) - min(scores) <= _ALIKE * max(map(abs, scores))]
    if not scored:
        return None
    if not alike or len(alike) * 2 < len(scored):
        return f"scores differ in {len(scored) - len(alike)} of {len(scored)} queries"
    names = sorted({strategy for _, strategy in alike})
    step, strategy = alike[-1]
    return Card(
        "scores-alike",
        "The scores are all alike",
        f"In {len(alike)} of {len(scored)} queries all picks had the same score; in step {step}, "
        f"{len(scored[step, strategy])} picks of {strategy} had the score {scored[step, strategy][0]:.4g}.",
        f"{' and '.join(names)} did not tell these samples apart, so which of them were picked is arbitrary. Often the "
        "learner says the same of many samples: it has learned nothing yet, the samples are equal, or, as trees do, it "
        "knows few different probabilities.",
        present(
            remedies.query("Choose by how the inputs lie, not by the learner's outputs:", "kcenter", layer="inputs")
        )
        or (("Choose by something else than these scores.", ""),),
    )


def _one_class(_: Facts, samples: Samples, remedies: Remedies) -> Finding:
    if len(samples.classes) < _PICKS:
        return None
    code, count = Counter(samples.classes.values()).most_common(1)[0]
    part, share = count / len(samples.classes), samples.pool_share
    usual = float(share[code]) if share is not None and code < len(share) else None
    if part < _ONE_CLASS or (usual is not None and part < usual + _ABOVE_USUAL):
        return f"at most {part:.0%} of the picks are of one class"
    name = samples.class_name(code)
    usual_text = "" if usual is None else f" Of the samples that are measured on, {usual:.0%} are of it."
    return Card(
        "one-class",
        "Nearly all picks are of one class",
        f"{count} of {len(samples.classes)} labeled picks ({part:.0%}) are of class {name}.{usual_text}",
        "The labels say little of the other classes.",
        present(
            remedies.query("Spread each step over the classes that the learner predicts:", "class-balanced"),
            remedies.query("Draw at random, so that classes come as often as in the pool:", "random"),
        )
        or (("Let the query strategy spread each step over the classes.", ""),),
    )


def _duplicates(_: Facts, samples: Samples, remedies: Remedies) -> Finding:
    if samples.repeats is None:
        return None
    repeats, count = samples.repeats
    if repeats < max(2, 0.01 * count):
        return f"{repeats} of {count} picks repeat an input"
    return Card(
        "duplicates",
        "Labels are bought twice",
        f"{repeats} of {count} picks ({repeats / count:.0%}) have exactly the input of a sample that was labeled or "
        "picked before.",
        "A second label of the same input teaches little, unless answers are noisy.",
        present(
            ("Remove equal rows from the data before the run.", "") if remedies.by_sample else None,
            remedies.query("Choose samples that differ from all labeled ones:", "kcenter", layer="inputs"),
        )
        or (("Let the query strategy draw other inputs than those that were asked for.", ""),),
    )


# -- the curve ---------------------------------------------------------------------------------------------------


class _Flat(NamedTuple):
    """A curve whose last third is flat.

    Parameters
    ----------
    step, labels, value
        Of the first measurement that is as good as all later ones, up to 5% of what was gained.
    last_labels, last
        Of the last measurement.
    gained
        How much better the best value is than the first one, in the unit of the metric.
    """

    step: int
    labels: int
    value: float
    last_labels: int
    last: float
    gained: float


def _plateau(facts: Facts, _: Samples, remedies: Remedies) -> Finding:
    if not facts.metrics:
        return None
    metric = facts.metrics[0]
    flat = _flat_end(facts.curve(metric), lower=lower_is_better(metric))
    if not isinstance(flat, _Flat):
        return None if flat is None else f"{facts.short(metric)} {flat}"
    name, spent = facts.short(metric), flat.last_labels - flat.labels
    full = not lower_is_better(metric) and _FULL <= flat.last <= 1
    larger = None if full else _larger(remedies)
    ceiling = (
        ("See what all labels would bring:", remedies.benchmark("--ceiling"))
        if remedies.repeatable and remedies.by_sample and not full
        else None
    )
    return Card(
        "plateau",
        "More labels change little",
        f"{name} was {flat.value:.4g} at {flat.labels} labels (step {flat.step}), and is {flat.last:.4g} at "
        f"{flat.last_labels}: the last {spent} labels brought at most {_FLAT:.0%} of all that was gained.",
        "There is hardly anything left to gain."
        if full
        else "What limits it now may be the learner, the features, or noise in the labels.",
        present(_stop(facts, metric, flat, remedies), larger, ceiling),
    )


def _flat_end(curve: list[tuple[int, int | None, float]], *, lower: bool) -> _Flat | str | None:
    """Return the flat end of a curve; what it does where it still rises; None where neither can be said."""
    points = [(step, labels, value) for step, labels, value in curve if labels is not None]
    if len(points) < _MEASUREMENTS:
        return None
    raw = np.array([value for *_, value in points])
    values = -raw if lower else raw
    if lower and raw.min() > 0:  # an error may still fall by half where it is small beside the first one
        values = -np.log(raw)
    third = len(values) - len(values) // 3
    before, gained = float(values[:third].max()), float(values.max() - values[0])
    if gained <= 0:
        return None
    if float(values[third:].max()) - before > _FLAT * gained:
        return f"got better in the last third of the run, to {raw[third:].min() if lower else raw[third:].max():.4g}"
    near = int(np.argmax(values >= values.max() - _FLAT * gained))
    middle = float(np.median(values[third:]))
    if min(middle, float(values[-1])) < values[near] - _FLAT * gained:  # it got worse again, which is not flat
        return None
    step, labels, value = points[near]
    last = points[-1]
    if last[1] <= labels:
        return None
    return _Flat(step, labels, value, last[1], last[2], abs(float(raw[int(values.argmax())]) - float(raw[0])))


def _stop(facts: Facts, metric: str, flat: _Flat, remedies: Remedies) -> Try | None:
    """Return the stop criterion that would have ended the run on its plateau, with what it would have saved."""
    lower = lower_is_better(metric)
    values = [(labels or 0, -value if lower else value) for _, labels, value in facts.curve(metric)]
    patience = max(3, len(values) // 6)
    for part in (_FLAT, _FLAT / 5, 0.0):
        delta = float(f"{part * flat.gained:.2g}")
        end = _end(values, patience, delta)
        if end is not None and flat.labels <= end < flat.last_labels:
            break
    else:
        return None
    words = f"End such a run by itself; with these values this run would have ended at {end} labels"
    chosen = list(remedies.table("stop"))
    if not remedies.repeatable or "plateau" in chosen or not remedies.offered("stop", "plateau"):
        return f"{words}: stop criterion plateau, patience {patience}, min_delta {delta:g}.", ""
    on = metric.rpartition(".")[2] if facts.short(metric) == metric.rpartition(".")[2] else metric
    flags = " ".join(f"--stop {name}" for name in [*chosen, "plateau"])
    wanted = {"name": on, "patience": patience, "min_delta": f"{delta:g}", "mode": "min" if lower else "max"}
    sets = " ".join(f"--set stop.plateau.{key}={value}" for key, value in wanted.items())
    return f"{words}:", remedies.again(f"{flags} {sets}")


def _end(values: list[tuple[int, float]], patience: int, delta: float) -> int | None:
    """Return at how many labels a plateau of so many measurements would end a run; None where it would not."""
    best, waited = -math.inf, 0
    for labels, value in values:
        best, waited = (value, 0) if value - best > delta else (best, waited + 1)
        if waited >= patience:
            return labels
    return None


def _larger(remedies: Remedies) -> Try:
    hidden = remedies.table("learner", "mlp").get("hidden")
    if not remedies.repeatable or not isinstance(hidden, list) or not hidden:
        return "See whether a larger learner makes use of the labels.", ""
    return (
        "See whether a larger network makes use of the labels:",
        remedies.again(f"--set learner.mlp.hidden=[{','.join(str(2 * int(width)) for width in hidden)}]"),
    )


def _cut(text: str, most: int = 200) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= most else f"{one_line[:most]}…"
