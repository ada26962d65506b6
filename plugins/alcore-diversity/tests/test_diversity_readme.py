"""The Python code of the README runs, and its tables are those of the constructors."""

import json
import re
from pathlib import Path

import alcore_diversity
import torch
from alcore_testing import run_examples

from alcore import plugins

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(tmp_path):
    names = run_examples(Path(__file__), tmp_path)
    assert len(names["pool"]) == 45
    asked = names["pool"].labeled_ids[30:]
    assert names["points"][asked].norm(dim=1).mean() > 1.3 * names["points"].norm(dim=1).mean()
    assert torch.equal(names["positions"], torch.tensor([3, 0]))


def test_each_strategy_and_its_parameters_are_in_the_tables():
    text = README.read_text(encoding="utf-8")
    for name in alcore_diversity.alcore_query_strategies():
        (section,) = re.findall(rf"\n## `{name}`: .*?\n(.*?)(?=\n## |\Z)", text, flags=re.DOTALL)
        matches = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, flags=re.MULTILINE)
        known, _ = plugins.parameters_of(plugins.load_factory(plugins.installed().offer("query", name)))
        defaults = [
            json.dumps(parameter.default) if isinstance(parameter.default, str) else str(parameter.default)
            for parameter in known
        ]
        assert matches == list(zip([parameter.name for parameter in known], defaults, strict=True)), name
