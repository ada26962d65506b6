"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_runs(tmp_path):
    assert len(run_examples(Path(__file__), tmp_path)["pool"]) == 9
