"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_examples_run(tmp_path):
    assert len(run_examples(Path(__file__), tmp_path)["pool"]) == 35
