"""What the README shows runs, and its table names every parameter."""

from pathlib import Path

from alcore_testing import run_examples

from alcore import plugins

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(tmp_path):
    names = run_examples(README, tmp_path)
    assert [record["train_samples"] for record in names["metrology"].records] == [10, 15, 20]
    assert names["outputs"].shape == (3, 2)


def test_every_parameter_is_in_the_table():
    text = README.read_text(encoding="utf-8")
    for parameter in plugins.parameters_of(plugins.load_factory(plugins.installed().offer("learner", "gp")))[0]:
        default = repr(parameter.default).replace("'", '"')
        assert parameter.name == "info" or f"| `{parameter.name}` | `{default}` |" in text
