"""A step costs the same early and late in a run: no statement of a step reads a table from its beginning to its end."""

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


def test_no_statement_of_a_step_scans_a_table_that_grows(
    build: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_run, "_EXPORT_SECONDS", 1e9)  # the exports read everything, and are paced by that
    statements = Statements(monkeypatch, 2)
    build(max_active_learning_steps=4, plugins=[statements]).run()
    assert len(statements.plans) > 20
    scans = [one for one, plan in statements.plans.items() if any(SCAN.search(line) for line in plan)]
    assert [one for one in scans if "ORDER BY rowid DESC LIMIT" not in one] == []  # which ends after a few rows
