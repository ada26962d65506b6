"""docs/label-strategies.md: each strategy on it keeps the contract that stands beside it."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from alcore_testing import ElsewhereLabelContract, ImmediateLabelContract, InProcessLabelContract
from helpers.source import ROOT

PAGE = ROOT / "docs" / "label-strategies.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
STRATEGIES, TESTS = BLOCKS[::2], BLOCKS[1::2]
names: dict[str, Any] = {"__name__": __name__}
exec(compile("\n".join(BLOCKS), str(PAGE), "exec"), names)

TestTableLabels = names["TestTableLabels"]
TestSimulationLabels = names["TestSimulationLabels"]
TestLabLabels = names["TestLabLabels"]


def test_each_way_has_its_contract() -> None:
    classes = [TestTableLabels, TestSimulationLabels, TestLabLabels]
    contracts = [ImmediateLabelContract, InProcessLabelContract, ElsewhereLabelContract]
    assert [written.__bases__ for written in classes] == [(contract,) for contract in contracts]
    assert len(STRATEGIES) == len(TESTS) == 3


@pytest.mark.parametrize("block", STRATEGIES, ids=["at once", "in this process", "elsewhere"])
def test_each_strategy_stands_by_itself(block: str) -> None:
    names = (name for node in ast.walk(ast.parse(block)) for name in getattr(node, "names", []))
    imported = {name.asname or name.name for name in names}
    used = {node.id for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name)}
    assert {"BaseLabel", "Failed"} <= imported <= used
