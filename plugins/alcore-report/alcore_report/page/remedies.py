"""What a card says to try: a change of the run's own settings, as a command that runs as it is printed."""

from __future__ import annotations

import functools
import inspect
import math
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alcore.errors import PluginError
from alcore.plugins import Registry, installed, load_factory
from alcore_report.page.facts import KINDS, Facts, command_name

Try = tuple[str, str]
"""A sentence, and the command; the command is empty where none can be given."""

_CONFIGS = {"training": "TrainingConfig", "driver": "DriverConfig", "training.optimizer": "OptimizerConfig"}
_EPOCHS = ("max_training_epochs", "max_fine_tuning_epochs")
_MORE_STEPS = 5
_SMALL_RATES = {"SGD": 0.01}  # learning rates that can be raised; of the other optimizers:
_SMALL_RATE = 0.001


class Remedies:
    """Commands that change something in a run.

    Where the labels are the pool's own answers, a command runs the experiment again. Where they were bought, it goes on
    with the run, so that no label is bought a second time. Of a run that was built in Python it is the field of a
    configuration.

    Parameters
    ----------
    facts
        The run.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._folder = facts.run.folder

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The tables of the experiment file; of a run that was built in Python, what describes it."""
        tree = tomllib.loads(self._facts.experiment)
        described = tree.get("python")
        return described if isinstance(described, dict) else tree

    def table(self, *names: str) -> dict[str, Any]:
        """Return a table of the settings; an empty one where there is none."""
        section: Any = self.settings
        for name in names:
            section = section.get(name) if isinstance(section, dict) else None
        return section if isinstance(section, dict) else {}

    @functools.cached_property
    def repeatable(self) -> bool:
        """Whether the experiment can be run again without a label that is bought: the pool knows its answers."""
        labeled = self._facts.labeled
        return not self._facts.python and bool(labeled) and all(request["kind"] == "id" for request in labeled)

    @functools.cached_property
    def by_sample(self) -> bool:
        """Whether samples of a pool were asked for, rather than generated inputs."""
        return bool(self._facts.requests) and all(request["sample"] is not None for request in self._facts.requests)

    @functools.cached_property
    def steps(self) -> int:
        """The number of finished steps."""
        return len(self._facts.steps)

    @property
    def exhausted(self) -> bool:
        """Whether the last step found nothing to ask for, so that more steps bring no label."""
        return bool(self._facts.steps) and not self._facts.steps[-1]["requested"]

    @functools.cached_property
    def trains_by_epochs(self) -> bool:
        """Whether the number of epochs changes how the learner is trained: it is not fitted to all labels at once."""
        learners = self._facts.parts.get("learner", [])
        return not any(hasattr(self._factory("learner", name), "fit_batches") for name in learners)

    # -- commands ------------------------------------------------------------------------------------------------

    def setting(self, sentence: str, changes: Mapping[str, Any]) -> Try | None:
        """Return a try that changes settings, by their full names; None where nothing can be changed any more."""
        if self._facts.python:
            return sentence, "; ".join(_in_python(changes))
        flags = " ".join(f"--set {shlex.quote(f'{name}={_value(value)}')}" for name, value in changes.items())
        if self.repeatable:
            return sentence, self.again(flags)
        return None if self.exhausted else (sentence, self.resume(self.steps + _MORE_STEPS, flags))

    def query(self, sentence: str, name: str, **parameters: Any) -> Try | None:
        """Return a try that chooses samples of a pool by another strategy; None where it is the run's own already.

        It asks for as many samples a step as the run does. Without a command where the labels would be bought again.
        """
        if not self.by_sample or self._facts.parts.get("query") == [name] or not self.offered("query", name):
            return None
        if not self.repeatable:
            return f"{sentence[:-1]}, in another run (query strategy {name}).", ""
        size = max((step["requested"] for step in self._facts.steps if step["requested"]), default=0)
        if size and "samples_per_step" not in self.table("driver"):
            parameters["max_samples"] = size
        flags = [f"--set {shlex.quote(f'query.{name}.{key}={_value(value)}')}" for key, value in parameters.items()]
        return sentence, self.again(" ".join([f"--query {name}", *flags]))

    def epochs(self, sentence: str, factor: float) -> Try | None:
        """Return a try that trains for so many times as many epochs in each step; None where epochs don't count."""
        changes = self._epochs(factor)
        return self.setting(sentence, changes) if changes else None

    def more_training(self) -> Try | None:
        """Return a try that trains longer, and faster where the learning rate is small; None where that has no use."""
        changes = self._epochs(10)
        if not changes:
            return None
        rates = self._rates()
        sentence = "Train longer, with a learning rate ten times as high:" if rates else "Train longer:"
        return self.setting(sentence, {**changes, **rates})

    def weight_decay(self, sentence: str) -> Try | None:
        """Return a try with ten times the weight decay, or 0.01; None for an optimizer that has none."""
        decay = self._argument("weight_decay")
        if not self.trains_by_epochs or decay is None:
            return None
        return self.setting(sentence, self._of_optimizer("weight_decay", max(_rounded(10 * decay), 0.01)))

    def _argument(self, name: str) -> float | None:
        """Return a number that the optimizer has, given or as its default; None where there is none."""
        cls = getattr(torch.optim, self._optimizer[0], None)
        parameters = inspect.signature(cls).parameters if callable(cls) else {}
        value = self._optimizer[1].get(name, parameters[name].default) if name in parameters else None
        return float(value) if isinstance(value, int | float) else None

    def _epochs(self, factor: float) -> dict[str, Any]:
        """Return the epochs of a training, multiplied; empty where that changes nothing."""
        table = self.table("training")
        given = {name: table[name] for name in _EPOCHS if isinstance(table.get(name), int) and table[name] > 0}
        new = {name: max(1, round(factor * epochs)) for name, epochs in given.items()}
        if not self.trains_by_epochs or new == given:
            return {}
        return {f"training.{name}": epochs for name, epochs in new.items()}

    def _rates(self) -> dict[str, Any]:
        """Return learning rates ten times as high; empty where the one that is used is not small."""
        rate, fine = self._argument("lr"), self.table("driver").get("fine_tuning_lr")
        if rate is None or rate > _SMALL_RATES.get(self._optimizer[0], _SMALL_RATE):
            return {}
        changes = self._of_optimizer("lr", _rounded(10 * rate))
        return changes | ({"driver.fine_tuning_lr": _rounded(10 * fine)} if isinstance(fine, int | float) else {})

    @functools.cached_property
    def _optimizer(self) -> tuple[str, dict[str, Any]]:
        """The name of the optimizer's class, and its arguments as far as they are known."""
        table, described = self.table("training", "optimizer"), self.table("training")
        if self._facts.python:
            return str(described.get("optimizer", "")), _numbers(self.table("training", "optimizer_kwargs"))
        return str(table.get("cls", "AdamW")).rpartition(".")[2].rpartition(":")[2], table

    def _of_optimizer(self, name: str, value: float) -> dict[str, Any]:
        if self._facts.python:
            return {"training.optimizer.optimizer_kwargs": {**self._optimizer[1], name: value}}
        return {f"training.optimizer.{name}": value}

    def more_labels(self, sentence: str) -> Try | None:
        """Return a try that goes on to twice the number of steps; None where there is nothing left to ask for."""
        if self.exhausted or not self.steps:
            return None
        if self._facts.python:
            return sentence, "; ".join(_in_python({"driver.max_active_learning_steps": 2 * self.steps}))
        return sentence, self.resume(2 * self.steps)

    def again(self, flags: str) -> str:
        """Return the command that runs the experiment again with other flags."""
        return self._allowed(f"alcore run {command_name(self._folder / 'experiment.toml')} {flags}")

    def resume(self, steps: int, flags: str = "") -> str:
        """Return the command that goes on with the run up to so many steps."""
        words = f"alcore resume {command_name(self._folder)} --steps {steps}{self._budget(steps)} {flags}".strip()
        return self._allowed(words)

    def _budget(self, steps: int) -> str:
        """Return the flag for a larger budget, where the run's own is less than so many steps are expected to cost."""
        budget = self.table("driver").get("budget")
        if not isinstance(budget, int | float) or not self._facts.paid or not self.steps:
            return ""
        _, labels, failures = self._facts.paid[-1]
        expected = math.ceil((labels + failures) * steps / self.steps)
        return f" --budget {expected}" if expected > budget else ""

    def benchmark(self, flags: str) -> str:
        """Return the command that compares the run's own query strategies with random choice."""
        arms = dict.fromkeys([*(["+".join(queries)] if (queries := self.table("query")) else []), "random"])
        file, name = command_name(self._folder / "experiment.toml"), shlex.quote(f"{self._facts.name}-benchmark")
        words = " ".join(f"--query {shlex.quote(arm)}" for arm in arms)
        return self._allowed(f"alcore benchmark {file} --name {name} {words} --seeds 10 {flags}".strip())

    # -- what is installed ---------------------------------------------------------------------------------------

    def offered(self, kind: str, name: str) -> bool:
        """Return whether an installed plugin offers a name."""
        return any(offer.name == name for offer in self._registry.offers(kind))

    @functools.cached_property
    def _registry(self) -> Registry:
        return installed()

    def _allowed(self, command: str) -> str:
        return f"{command} --allow-code" if self._names_code else command

    @functools.cached_property
    def _names_code(self) -> bool:
        """Whether the experiment names code or a program, so that alcore asks for leave to run it."""
        for kind in KINDS:
            for name, values in self.table(kind).items():
                table = values if isinstance(values, dict) else {}
                if self._is_code("query" if kind == "start" else kind, str(table.get("use", name)), table):
                    return True
        return False

    def _is_code(self, kind: str, use: str, table: Mapping[str, Any]) -> bool:
        if ":" in use:
            return True
        names = getattr(self._factory(kind, use), "code_parameters", ())
        return isinstance(names, frozenset | set | tuple | list) and any(table.get(name) for name in names)

    def _factory(self, kind: str, name: str) -> Any:
        """Return what makes a part; None where no installed plugin offers it, as the command will say."""
        try:
            return load_factory(self._registry.offer(kind, name))
        except PluginError:
            return None


def present(*tries: Try | None) -> tuple[Try, ...]:
    """Return the tries that can be made."""
    return tuple(remedy for remedy in tries if remedy is not None)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _value(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return (
        f"[{','.join(map(_value, value))}]"
        if isinstance(value, Sequence) and not isinstance(value, str)
        else f"{value}"
    )


def _in_python(changes: Mapping[str, Any]) -> list[str]:
    """Return the changes as calls of configurations, the other arguments of which are left out."""
    calls: dict[str, list[str]] = {}
    for name, value in changes.items():
        table, _, field = name.rpartition(".")
        calls.setdefault(_CONFIGS[table], []).append(f"{field}={value!r}")
    return [f"{config}(..., {', '.join(fields)})" for config, fields in calls.items()]


def _numbers(described: Mapping[str, str]) -> dict[str, float]:
    """Return the arguments of an optimizer that are numbers, of their description as texts."""
    numbers = {}
    for name, text in described.items():
        try:
            numbers[name] = float(text)
        except ValueError:
            continue
    return numbers
