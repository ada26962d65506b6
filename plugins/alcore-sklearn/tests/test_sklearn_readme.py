"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run(tmp_path):
    assert README.read_text(encoding="utf-8").count("```python\n") == 2
    assert len(run_examples(README, tmp_path)["pool"]) == 35
