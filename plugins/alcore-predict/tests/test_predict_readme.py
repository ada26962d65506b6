"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_predicts_and_exports(tmp_path):
    made = run_examples(Path(__file__), tmp_path)["made"]
    assert made.probabilities.shape == (5, 2)
    assert (tmp_path / "mine-export" / "predict.py").is_file()
