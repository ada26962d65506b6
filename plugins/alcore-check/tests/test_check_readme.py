"""The Python code of the README runs."""

from pathlib import Path

from alcore_testing import run_examples


def test_the_example_checks_an_experiment(tmp_path):
    result = run_examples(Path(__file__), tmp_path)["found"]
    assert result.faults == []
    assert result.forecast.steps == 3
    assert (result.folder / "run.db").is_file()
