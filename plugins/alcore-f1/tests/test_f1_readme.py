"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_runs(tmp_path):
    names = run_examples(Path(__file__), tmp_path)
    measured = [(record["train_samples"], record["on"]) for record in names["metrology"].records]
    assert measured == [(20, "validation"), (25, "validation"), (30, "validation")]
