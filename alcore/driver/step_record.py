"""What a step did: committed with it, and given to observers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from alcore.protocols import EndKind, EndReason


@dataclasses.dataclass
class StepRecord:
    """What a step did so far.

    Parameters
    ----------
    step
        Its number.
    values
        Counts and losses, the same in every run of the experiment.
    seconds
        How long its phases took.
    metrics
        The records of each metrology strategy, by its name.
    end
        Why the run ends with this step, or waits in it for labels; None where it goes on.
    """

    step: int
    values: dict[str, Any]
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    metrics: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    end: EndReason | None = None

    @classmethod
    def begin(cls, step: int, train_samples: int | None) -> StepRecord:
        """Return the record of a step that has done nothing yet."""
        values = {
            "step": step, "train_samples": train_samples, "requested": 0, "labeled": 0, "failed": 0, "refused": 0,
        }  # fmt: skip
        return cls(step, values)

    @property
    def settled(self) -> bool:
        """Whether any request was labeled or given up in the step."""
        return bool(self.values["labeled"] or self.values["failed"])

    @property
    def waits(self) -> bool:
        """Whether the step goes on with its labeling phase, which waits for labels."""
        return self.end is not None and self.end.kind is EndKind.WAITING

    def of_training(self) -> dict[str, Any]:
        """Return what the training recorded."""
        return {name: self.values[name] for name in ("epochs", "losses") if name in self.values}

    def for_observers(self) -> dict[str, Any]:
        """Return the record as the hook ``alcore_step_end`` gets it."""
        return {**self.values, "metrics": self.metrics, "seconds": self.seconds}

    def summary(self) -> str:
        """Return the record as a line of the log."""
        words = [f"{self.values['train_samples']} training samples"]
        words += [f"{name} {value:.4g}" for name, value in self.values.get("losses", {}).items()]
        for records in self.metrics.values():
            for record in records[:1]:
                if isinstance(record, Mapping):
                    words += [f"{name} {value:.4g}" for name, value in record.items() if isinstance(value, float)]
        if feasibility := self.values.get("feasibility"):
            words.append(f"{feasibility['unlikely']} of {feasibility['candidates']} candidates likely to be infeasible")
        words.append(f"{self.values['requested']} requested, {self.values['labeled']} labeled")
        return ", ".join(words)
