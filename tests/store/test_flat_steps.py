"""A step costs the same early and late in a run: no statement reads a table, or all of a run so far."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

import alcore
from alcore import Driver
from alcore.store import run as store_run

GROWING = "requests|labels|refused|records|steps|queries|checkpoints|label_strategy"
SCAN = re.compile(rf"SCAN (?:{GROWING}|[a-z])\b(?! USING (?:COVERING )?INDEX open_requests)")
"""Of the open requests alone, a statement may read all: there are as many as a step leaves open."""


class Statements:
    """Records each statement of one step, and how SQLite carries it out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.step, self.on = step, False
        self.plans: dict[str, list[str]] = {}
        recorder = self

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
                if recorder.on and statement.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                    plan = super().execute(f"EXPLAIN QUERY PLAN {statement}", *parameters)
                    recorder.plans[statement] = [str(row[3]) for row in plan]
                return super().execute(statement, *parameters)

        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Connection, **more))

    @alcore.runhook
    def alcore_step_end(self, record: dict[str, Any]) -> None:
        self.on = record["step"] == self.step - 1


class AsksForCosts:
    """A stop criterion that looks at what was spent."""

    @alcore.runhook
    def alcore_should_stop(self, driver: Driver) -> str | None:
        return "too dear" if driver.spent().cost > 1e6 else None


class Instructions:
    """Counts the instructions of SQLite's virtual machine that each step takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counted = 0
        self.of_steps: list[int] = []
        recorder = self

        class Connection(sqlite3.Connection):
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more)
                self.set_progress_handler(recorder.count, 1)

        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Connection, **more))

    def count(self) -> None:
        self.counted += 1

    @alcore.runhook
    def alcore_step_end(self) -> None:
        self.of_steps.append(self.counted)
        self.counted = 0


@pytest.fixture
def _no_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the exports, which read everything, and are paced by that."""
    monkeypatch.setattr(store_run, "_EXPORT_SECONDS", 1e9)


@pytest.fixture
def settings(toys: Any) -> Callable[[float | None], dict[str, Any]]:
    """Return the settings of a run of which some labels fail."""

    class Failing(toys.EchoLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            for request in queue_to_label.get_many(4):
                failed = request.ordinal == 3
                serialize_queue.put(alcore.Failed(request, "is down", cost=0.1) if failed else request.item)

    return lambda budget: {
        "budget": budget, "label_strategy": Failing(), "query_strategies": [toys.FirstQuery(4)], "skip_training": True,
        "train_datapool": toys.pool(400),
    }  # fmt: skip


each_budget = pytest.mark.parametrize("budget", [None, 1e6], ids=["no budget", "budget"])


@each_budget
@pytest.mark.usefixtures("_no_exports")
def test_step_takes_as_many_instructions_of_the_database_late_as_early(
    build: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch, settings: Any, budget: float | None
) -> None:
    counter = Instructions(monkeypatch)
    build(max_active_learning_steps=44, plugins=[counter, AsksForCosts()], **settings(budget)).run()
    early, late = sum(counter.of_steps[22:26]), sum(counter.of_steps[39:43])  # after the last 20 failures are read
    assert early > 4000
    assert late <= 1.01 * early


@each_budget
@pytest.mark.usefixtures("_no_exports")
def test_no_statement_of_a_step_scans_a_table_that_grows(
    build: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch, settings: Any, budget: float | None
) -> None:
    statements = Statements(monkeypatch, 2)
    build(max_active_learning_steps=4, plugins=[statements, AsksForCosts()], **settings(budget)).run()
    assert len(statements.plans) > 20
    scans = [one for one, plan in statements.plans.items() if any(SCAN.search(line) for line in plan)]
    assert [scan for scan in scans if "ORDER BY rowid DESC LIMIT" not in scan] == []  # which ends after a few rows
