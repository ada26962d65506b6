"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_runs(tmp_path):
    verdict = run_examples(Path(__file__), tmp_path)["verdict"]
    assert verdict.outcome == "better"
    # 0.1 over 100 labels more a curve: half of it in the mean
    assert abs(verdict.difference.value - 0.05) < 1e-9
