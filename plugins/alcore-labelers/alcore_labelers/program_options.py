"""What the label strategies `command` and `jobs` have in common: what is run, and how its answer is taken."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alcore.errors import UsageError, check_choice
from alcore.pools import is_choosable, named_values
from alcore.protocols import Failed, Label, Request
from alcore.strategies import BaseLabel
from alcore_labelers.attempts import AttemptFolders, Ended, Place
from alcore_labelers.items import Item, read_items
from alcore_labelers.outcomes import ANSWERS, Answer, AnswerReader
from alcore_labelers.template import CommandTemplate, check_argument

Keep = Literal["all", "failures"]
Cost = Literal["expected", "seconds"]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OF_A_REQUEST = ("request", "sample", "attempt", "seed", "folder")
"""Placeholders beside the names of values, for one request."""
_OF_AN_ATTEMPT = frozenset({"request", "attempt", "seed", "folder", "requests"})
OF_A_BATCH = ("requests", "folder")
"""Placeholders for a batch."""


class ProgramLabelStrategy(BaseLabel):
    """A label strategy whose answers come from a program that works in a folder of its own for each attempt.

    Parameters
    ----------
    run, answer, infeasible_exits, keep, cost, env, max_result_bytes
        As `CommandLabelStrategy` has them.
    where
        The name of the strategy in messages.
    batch
        How many requests a call of the program answers.
    """

    def __init__(
        self,
        run: str,
        answer: Answer,
        infeasible_exits: Sequence[int] | None,
        keep: Keep,
        cost: Cost,
        env: Mapping[str, str] | None,
        max_result_bytes: int,
        where: str,
        batch: int = 1,
    ) -> None:
        check_choice(where, "answer", answer, ANSWERS)
        check_choice(where, "keep", keep, ("all", "failures"))
        check_choice(where, "cost", cost, ("expected", "seconds"))
        check_at_least(where, "max_result_bytes", max_result_bytes, 1)
        if wrong := [name for name in env or {} if not _VARIABLE.fullmatch(name)]:
            raise UsageError(
                f"{where}: env names the variable {wrong[0]!r}; use ASCII letters, "
                "digits and underscores, no digit first."
            )
        for name, value in (env or {}).items():
            check_argument(value, f"{where}: env: {name}")
        self.run, self.batch = CommandTemplate(run, "run"), batch
        self.keep, self.cost_by, self.env = keep, cost, dict(env or {})
        self._where, self._reader = where, AnswerReader(answer, infeasible_exits or (), max_result_bytes)
        self._shown: dict[int, dict[str, Any]] = {}

    def check(self) -> None:
        """Raise `UsageError` if there is no such program, or a placeholder is none of the first candidate's values."""
        command = self._absolute()
        first_ids = None
        if is_choosable(self.driver.choice_pool):
            first_ids = next((ids for ids in self.driver.candidates(1) if len(ids)), None)
        if first_ids is not None:
            (item,) = read_items(self.driver, [Request("0" * 32, 0, 0, int(first_ids[0]))])
            values = self.placeholders(item, 0, Path("folder"))
            command.check(values)
            if command.program_names and not command.program_names & _OF_AN_ATTEMPT - set(item.named):
                command.check_program(values)
        elif unknown := [name for name in self.run.names if self.batch > 1 and name not in OF_A_BATCH]:
            raise UsageError(f"run has the placeholder {{{unknown[0]}}}; of a batch there are {', '.join(OF_A_BATCH)}.")

    @property
    def folders(self) -> AttemptFolders:
        """The folders of the attempts."""
        return AttemptFolders(self.work_dir.absolute())

    def _absolute(self) -> CommandTemplate:
        """Return the command for a program that works in another folder than this process."""
        return self.run.with_paths(Path.cwd())

    def read_shown(self) -> None:
        """Read the named values of all samples that have no answer, at once: a pool may read its file for that."""
        self._shown = named_values(self.driver.choice_pool, self.driver.pending().tolist())

    def items(self, requests: Sequence[Request]) -> list[Item]:
        """Return what is known of requests."""
        return read_items(self.driver, requests, self._shown)

    def placeholders(self, item: Item, seed: int, folder: Path) -> dict[str, Any]:
        """Return the values of the placeholders; a named value of the item comes before what else has its name."""
        if self.batch > 1:
            return {"requests": folder / "requests.json", "folder": folder}
        request = item.request
        own = (request.id, item.sample, request.attempt, seed, folder)
        return dict(zip(OF_A_REQUEST, own, strict=True)) | item.named

    def seed(self, request: Request) -> int:
        """Return the seed of a request, 0 to 2^31 - 1; the same for each attempt, and in a run of another id."""
        return int(self.generator(f"{request.step}.{request.ordinal}").initial_seed() % 2**31)

    def left_files(self, place: Place) -> bool:
        """Return whether the program of an attempt left a file that is taken for its answer."""
        return self._reader.left_files(place)

    def deliver(self, request: Request, place: Place, ended: Ended, answers: Any) -> None:
        """Put the answer of an attempt that is over."""
        outcome, before = self._reader.read(place, ended), answers.qsize()
        cost = outcome.cost
        if cost is None and self.cost_by == "seconds":
            cost = ended.seconds / place.size
        answer: Label | Failed
        if outcome.kind is None:
            answer = Label(request, outcome.value, source=self.name, cost=cost)
        else:
            answer = Failed(request, outcome.reason, outcome.kind, 0.0 if cost is None and ended.code is None else cost)
        answers.put(answer)
        accepted = outcome.kind is None and answers.qsize() > before
        self.folders.note_delivered(request, remove=accepted and self.keep == "failures" and place.position is None)


def check_at_least(where: str, name: str, value: float | None, least: float) -> None:
    """Raise `UsageError` where a number that is given is too small, infinite or NaN."""
    if value is not None and not least <= value < math.inf:
        raise UsageError(f"{where}: {name} is {value}; it must be at least {least}.")
