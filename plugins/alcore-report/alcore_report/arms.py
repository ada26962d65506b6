"""The arms of a benchmark: one experiment each, which differ in their query strategies alone."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from alcore.errors import UsageError, did_you_mean
from alcore.experiment import Experiment, Part, Resolved, resolve, to_toml
from alcore.plugins import Registry
from alcore.pools import knows_answers, offers_parts, unlabeled_ids
from alcore.strategies import labels_by_id

BASELINE, CEILING = "random", "ceiling"
_STANDARD_KEEP = "last=1"  # a resumed cell needs no more


@dataclasses.dataclass(frozen=True)
class BenchmarkRequest:
    """What the user asks for.

    Parameters
    ----------
    experiment
        The experiment file, or the file of data, if there is one.
    queries
        The arms: names of query strategies, several of one arm joined by ``+``.
    parts
        Names by kind, of all other kinds.
    assign
        What ``--set`` gives.
    driver
        What flags set in the table ``[driver]``.
    baseline, ceiling, allow_code
        The flags.
    target
        What is to be predicted, a parameter of the data.
    """

    experiment: Path | None
    queries: Sequence[str]
    parts: Mapping[str, Sequence[str]]
    assign: Sequence[str]
    driver: Mapping[str, Any]
    baseline: bool
    ceiling: bool
    allow_code: bool
    target: str | None = None


@dataclasses.dataclass(frozen=True)
class Arm:
    """What each run of an arm is made of, beside its seed.

    Parameters
    ----------
    name
        As the user and tables call it.
    tree
        The complete experiment, without seeds and the folder of runs.
    steps
        How many steps a run has at most; None where that is not known, or where a step says little about the time.
    labels
        How many labels a run buys at most; None where that is not known.
    allow_code
        Whether it names code or a program of the user, who has allowed it.
    """

    name: str
    tree: dict[str, Any]
    steps: int | None
    labels: int | None
    allow_code: bool

    @property
    def stem(self) -> str:
        """How the names of its runs begin."""
        return self.name.replace("+", ".").replace(":", ".")

    @property
    def toml(self) -> str:
        """The experiment file of its runs."""
        return tomli_w.dumps(self.tree)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All arms.

    Parameters
    ----------
    arms
        In the order of the user, baseline and ceiling last.
    data
        What the benchmark is called if the user gives no name.
    free
        Whether the pool knows its answers, so that labels cost nothing.
    label
        The name of the label strategy.
    notes
        What the user has to know.
    """

    arms: list[Arm]
    data: str
    free: bool
    label: str
    notes: list[str]


def make_plan(request: BenchmarkRequest, registry: Registry) -> Plan:
    """Return the arms, each checked as ``alcore run`` checks its experiment.

    Raises
    ------
    UsageError
        If one of them could not be run.
    """
    is_data = request.experiment is not None and registry.reader_of(request.experiment) is not None
    if request.experiment is not None and not is_data and not request.experiment.exists():
        raise UsageError(f"experiment file {request.experiment} can't be read: there is no such file.")
    names = list(request.queries) or ["+".join(part.name for part in _standard_queries(request, registry))]
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(
            f"--query {repeated[0]} is given twice, and both arms would be the same. To compare parameters, give each "
            f"its own table in an experiment file, such as [query.other] with use = {repeated[0]!r}, and --query other."
        )
    if request.baseline and BASELINE not in names:
        names.append(BASELINE)
    for name in names:
        words = name.split("+")
        if "" in words or len(set(words)) < len(words):
            raise UsageError(f"--query {name}: write the names of different strategies with + between them.")
    if CEILING in names:
        raise UsageError(f"--query {CEILING}: this name is kept for the run on all labels; --ceiling adds it.")
    _check_assignments(request, names)
    built: list[tuple[str, Resolved]] = []
    for name in names:
        experiment = _experiment(request, name, registry)
        if name == BASELINE and request.baseline and built:
            _as_many(experiment, [resolved for _, resolved in built])
        with contextlib.redirect_stdout(sys.stderr):
            built.append((name, resolve(experiment, registry, allow_code=request.allow_code)))
    first = built[0][1]
    if not first.parts["metrology"]:
        raise UsageError(
            "nothing would be measured, so there would be nothing to compare; choose a metrology strategy, for "
            f"instance --metrology {'regression' if first.data.info.task == 'regression' else 'f1'}."
        )
    follows, notes = _seed_follows(_read(request, registry), first)
    arms = [_arm(name, resolved, follows) for name, resolved in built]
    if len({arm.stem for arm in arms}) < len(arms):
        raise UsageError(f"the runs of two arms would have the same names; call them otherwise: {', '.join(names)}.")
    (data,), (label,) = first.parts["data"], first.parts["label"]
    by_id = labels_by_id(label.factory)
    free = by_id and knows_answers(_choice(first))
    if by_id and not free:
        raise UsageError(
            f"label strategy {label.given.use!r} answers with sample ids alone, and the data doesn't know "
            "the answers, so no run would get a label; compare on data that knows them, or choose who answers: --label."
        )
    if request.ceiling:
        arms.append(_ceiling(request, registry, first, arms[0], follows))
    file = request.experiment or _read(request, registry).data_file
    return Plan(arms, file.stem if file else data.given.name, free, label.given.use, notes)


def _read(request: BenchmarkRequest, registry: Registry) -> Experiment:
    """Return the experiment with everything that all arms share, and the query strategies of the file."""
    experiment = Experiment() if request.experiment is None else Experiment.open(request.experiment, registry)
    for kind, names in request.parts.items():
        if kind == "data":
            for name in names:
                experiment.choose_data(name, registry)
        elif names:
            experiment.choose(kind, names)
    experiment.complete()
    if request.target is not None:
        experiment.parts["data"][0].values["target"] = request.target
    return experiment


def _experiment(request: BenchmarkRequest, name: str, registry: Registry) -> Experiment:
    """Return the experiment of one arm."""
    experiment = _read(request, registry)
    if name != CEILING:
        part_of = {part.name: part for part in experiment.parts["query"] if "query" not in experiment.implied}
        experiment.implied.discard("query")
        experiment.parts["query"] = [part_of.get(word) or _chosen(word) for word in name.split("+")]
    own = {part.name for part in experiment.parts["query"]}
    for text in request.assign:
        words = text.partition("=")[0].strip().split(".")
        if words[0] != "query" or len(words) < 2 or words[1] in own:
            experiment.set(text)
    if "weights" in request.driver:  # not those that the file names
        experiment.settings["driver"].pop("weights_sha256", None)
    common = {"final_training": True, "keep": _STANDARD_KEEP, "threads": 1}
    experiment.settings["driver"] = common | experiment.settings["driver"] | dict(request.driver)
    return experiment


def _standard_queries(request: BenchmarkRequest, registry: Registry) -> list[Part]:
    """Return the query strategies of the file, or the standard ones, which depend on the task of the data."""
    experiment = _read(request, registry)
    if "query" not in experiment.implied:
        return experiment.parts["query"]
    for text in request.assign:
        if not text.startswith("query."):
            experiment.set(text)
    with contextlib.redirect_stdout(sys.stderr):
        return [part.given for part in resolve(experiment, registry, allow_code=request.allow_code).parts["query"]]


def _chosen(use: str) -> Part:
    return Part("query", use.rpartition(":")[2], use, True, {})


def _check_assignments(request: BenchmarkRequest, names: Sequence[str]) -> None:
    """Refuse a parameter of a query strategy that no arm has; others are checked with each arm."""
    own = {word.rpartition(":")[2] for name in names for word in name.split("+")}
    for text in request.assign:
        words = text.partition("=")[0].strip().split(".")
        if words[0] == "query" and len(words) > 1 and words[1] not in own:
            raise UsageError(
                f"--set {text}: no arm has a query strategy {words[1]!r}: {did_you_mean(words[1], own)}. Add the arm "
                f"with --query {words[1]}."
            )


def _as_many(experiment: Experiment, others: Sequence[Resolved]) -> None:
    """Let the baseline ask for as many samples a step as the first arm, unless the user says how many."""
    (part,) = experiment.parts["query"]
    asked = _samples_a_step(others[0])
    if asked is not None and "max_samples" not in part.values:
        part.values["max_samples"] = asked


def _samples_a_step(resolved: Resolved) -> int | None:
    """Return how many samples all query strategies ask for in a step, where that is known."""
    if (shared := resolved.settings.driver.get("samples_per_step")) is not None:
        return int(shared)
    total = 0
    for part in resolved.parts["query"]:
        count = part.values.get("max_samples", part.table.defaults.get("max_samples"))
        if not isinstance(count, int):
            return None
        total += count
    return total


def _choice(resolved: Resolved) -> Any:
    return resolved.data.train if resolved.data.unlabeled is None else resolved.data.unlabeled


def _seed_follows(experiment: Experiment, resolved: Resolved) -> tuple[bool, list[str]]:
    """Return whether the data takes the seed of each run, and what to say about it.

    It does unless the user gives the data a seed of its own. The experiment file that a run writes gives both seeds,
    and they are equal; such a seed is the run's.
    """
    (part,) = resolved.parts["data"]
    if "seed" not in part.table.parameters:
        return False, [
            f"data {part.given.use} takes no seed, so every run has the same data, split and initial labels."
        ]
    given = part.given.values.get("seed")
    in_file = experiment.parts["data"][0].values.get("seed")
    if given is None or (given == in_file and given == experiment.settings["driver"].get("seed", 0)):
        return True, []
    return False, [
        f"[{part.given.where}] has a seed of its own, so every run has the same data, split and initial labels."
    ]


def _arm(name: str, resolved: Resolved, follows: bool) -> Arm:
    tree = tomllib.loads(to_toml(resolved))
    tree["driver"].pop("seed", None)
    tree["driver"].pop("root_log_dir", None)
    if follows:
        (table,) = tree["data"].values()
        table.pop("seed", None)
    return Arm(name, tree, *_length(resolved), resolved.names_code)


def _length(resolved: Resolved) -> tuple[int | None, int | None]:
    """Return how many steps a run has, and how many labels it buys, at most."""
    steps, asked, left = resolved.settings.driver.get("max_active_learning_steps"), _samples_a_step(resolved), None
    if callable(getattr(_choice(resolved), "unlabeled_indices", None)):
        left = _unlabeled(_choice(resolved))
    budget = resolved.settings.driver.get("budget")
    most = [limit for limit in (left, None if budget is None else int(budget)) if limit is not None]
    if asked and most:
        needed = math.ceil(min(most) / asked)
        steps = needed if steps is None else min(steps, needed)
    labels = [*most, steps * asked] if steps is not None and asked else most
    return steps, min(labels) if labels else None


def _ceiling(request: BenchmarkRequest, registry: Registry, first: Resolved, arm: Arm, follows: bool) -> Arm:
    """Return the arm that asks for everything in its first step, and then trains for as long as the others in all.

    A learner that is fitted to all labels at once, and one that is reset in each step, trains as long as in any step.
    """
    experiment = _experiment(request, CEILING, registry)
    experiment.parts["query"] = [Part("query", "everything", "everything", True, {})]
    experiment.parts["stop"] = []
    driver, training = experiment.settings["driver"], experiment.settings["training"]
    for name in ("budget", "samples_per_step"):
        driver.pop(name, None)
    driver |= {"max_active_learning_steps": 1 + bool(first.parts["start"]), "final_training": True}
    own = first.settings.training
    if not own["reset_learner"] and not hasattr(first.parts["learner"][0].factory, "fit_batches"):
        if arm.steps is None:
            raise UsageError(
                "--ceiling: how long the arms train is not known, since nothing says how many steps they have; give "
                "--steps."
            )
        epochs = own["max_fine_tuning_epochs"]
        training["max_fine_tuning_epochs"] = arm.steps * (own["max_training_epochs"] if epochs is None else epochs)
    with contextlib.redirect_stdout(sys.stderr):
        resolved = resolve(experiment, registry, allow_code=request.allow_code)
    pool = _choice(resolved)
    if not callable(getattr(pool, "unlabeled_indices", None)):
        raise UsageError(
            f"--ceiling: the pool of [{first.parts['data'][0].given.where}] can't list its unlabeled samples, so not "
            "all of them can be asked for; leave --ceiling out."
        )
    made = _arm(CEILING, resolved, follows)
    return dataclasses.replace(made, steps=None, labels=_unlabeled(pool))


def _unlabeled(pool: Any) -> int:
    """Return how many unlabeled samples a pool has, at most; one that offers a part in each step is not listed."""
    return int(pool.total) if offers_parts(pool) else sum(map(len, unlabeled_ids(pool)))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List in words what differs between two experiments."""
    old, new = _flat(before), _flat(now)
    differing = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            was, is_now = (repr(table[name]) if name in table else "not given" for table in (old, new))
            differing.append(f"{name} was {was} and is {is_now}")
    return differing


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.") or {f"{prefix}{name}": "a table"}
        else:
            flat[f"{prefix}{name}"] = copy.copy(value)
    return flat
