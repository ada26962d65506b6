"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_runs(tmp_path):
    names = run_examples(Path(__file__), tmp_path)
    assert [record["train_samples"] for record in names["metrology"].records] == [50, 60, 70, 80, 90]
