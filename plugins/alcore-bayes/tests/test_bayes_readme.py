"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_examples_run(tmp_path):
    names = run_examples(Path(__file__), tmp_path)
    assert len(set(names["pool"].labeled_ids.tolist())) == 35
    assert names["outputs"].shape == (20, 300, 1)
    assert names["information"].shape == names["spread"].shape == names["votes"].shape == (300,)
    assert names["gains"].tolist() == sorted(names["gains"].tolist(), reverse=True)
