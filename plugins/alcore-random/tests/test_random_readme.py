"""The Python code of the README runs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from alcore_testing import ALL_TASKS, run_examples
from alcore_testing.query import QueryOracle, QueryPending, QueryRuns

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(tmp_path):
    assert len(run_examples(Path(__file__), tmp_path)["pool"]) == 35


def test_the_plugin_of_the_guide_works(tmp_path, monkeypatch):
    """Its three files are written as the README shows them, and the strategy is made from them."""
    text = README.read_text(encoding="utf-8")
    (project,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    offers, strategy, _ = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    package = tmp_path / "alcore_nearzero"
    package.mkdir()
    (package / "__init__.py").write_text(offers)
    (package / "query.py").write_text(strategy)
    entry = tomllib.loads(project)["project"]["entry-points"]["alcore"]
    about = tmp_path / "alcore_nearzero-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: alcore-nearzero\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[alcore]\n" + "".join(f"{name} = {at}\n" for name, at in entry.items()))
    code = (
        "import torch; from alcore import plugins;"
        "query = plugins.installed().make('query', 'nearzero', max_samples=3);"
        "print(query.max_samples, query.score(torch.tensor([[3.0], [-1.0]])).tolist())"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "3 [-3.0, -1.0]"


def _farthest(**parameters):
    """Return a strategy of the class that the README shows."""
    *_, code = re.findall(r"```py\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}
    exec(code, names)
    return names["FarthestQuery"](**parameters)


class TestTheSetQueryOfTheGuide(QueryPending, QueryOracle, QueryRuns):
    tasks = ALL_TASKS

    def make(self, **parameters):
        return _farthest(**parameters)
