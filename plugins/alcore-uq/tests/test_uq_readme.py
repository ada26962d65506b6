"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_runs(tmp_path):
    names = run_examples(Path(__file__), tmp_path)
    distance = names["points"].sum(dim=1).abs()
    asked = names["pool"].labeled_ids[20:]
    assert len(asked) == 15
    assert distance[asked].mean() < distance.mean() / 2
