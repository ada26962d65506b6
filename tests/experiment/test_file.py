"""`Experiment`: files, chosen names and single settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alcore.errors import UsageError
from alcore.experiment import STANDARD_PARTS, Experiment


def test_empty_experiment_completes_to_standard_parts(chosen):
    uses = {kind: [part.use for part in parts] for kind, parts in chosen().parts.items()}
    assert uses == STANDARD_PARTS


def test_chosen_name_keeps_its_parameters_in_the_file(read, chosen):
    base = read("[query.q]\ncount = 4\n[query.uq]\ncount = 5\n[label.dummy]\n")
    experiment = chosen(base=base, query=["q"], label=["other"])
    assert [(part.where, part.values) for part in experiment.parts["query"]] == [("query.q", {"count": 4})]
    assert [part.where for part in experiment.parts["label"]] == ["label.other"]


def test_chosen_name_ignores_table_that_uses_another_plugin(read, chosen):
    experiment = chosen(base=read('[query.q]\nuse = "uq"\ncount = 4\n'), query=["q"])
    assert [(part.use, part.values) for part in experiment.parts["query"]] == [("q", {})]


def test_repeated_name_gets_a_number(chosen):
    experiment = chosen("query.q-2.count=2", query=["q", "q", "uq"])
    assert [part.where for part in experiment.parts["query"]] == ["query.q", "query.q-2", "query.uq"]


def test_empty_table_means_no_strategies(read, chosen):
    experiment = chosen(base=read("[metrology]\n[query]\n"))
    assert experiment.parts["metrology"] == experiment.parts["query"] == []


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[qeury.uq]", ["[qeury]", "did you mean 'query'?"]),
        ("[drivers]\nseed = 1", ["[drivers]", "did you mean 'driver'?"]),
        ("seed = 1", ["'seed'", "outside any table"]),
        ("[query]\nuq = 3", ["query.uq", "[query.uq]"]),
        ('[[query]]\nuse = "uq"', ["[[query]]", "[query.NAME]"]),
        ("[driver", ["TOML"]),
        ("[driver]\nseed = 1\nseed = 2", ["TOML"]),
    ],
)
def test_invalid_file_is_refused_with_file_and_place(read, text, fragments):
    with pytest.raises(UsageError) as error:
        read(text)
    for fragment in ["e.toml", *fragments]:
        assert fragment in str(error.value)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
@pytest.mark.parametrize("name", ["x.toml", "x.parquet", "x.xlsx", "x.jsonl", "x"])
def test_file_without_a_table_is_refused(tmp_path, registry, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="holds no table, so it does not say what to run") as error:
        Experiment.open(tmp_path / name, registry)
    assert ("data is read from" in str(error.value)) == (Path(name).suffix not in ("", ".toml"))


@pytest.mark.parametrize("name", ["absent.toml", "latin.toml", "."])
def test_unreadable_file_is_refused(tmp_path, name):
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(UsageError, match="can't be read"):
        Experiment.read(tmp_path / name)


@pytest.mark.parametrize("kind", ["data", "learner", "loop", "label"])
def test_single_kind_with_none_or_two_parts_is_refused(chosen, kind):
    for uses in ([], ["a", "b"]):
        with pytest.raises(UsageError, match=f"has one {kind}"):
            chosen(**{kind: uses})


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("query.uq.count", "write kind.name.parameter=value"),
        ("=3", "write kind.name.parameter=value"),
        ("query=3", "write kind.name.parameter=value"),
        ("query..count=3", "write kind.name.parameter=value"),
        ("query.uq=3", "write query.name.parameter=value"),
        ("qeury.uq.count=3", "did you mean 'query'?"),
        ("query.up.count=3", "did you mean 'uq'?"),
        ("query.q.count=3", "--query q"),
    ],
)
def test_set_without_target_is_refused(chosen, text, fragment):
    with pytest.raises(UsageError) as error:
        chosen(text)
    assert f"--set {text}" in str(error.value)
    assert fragment in str(error.value)


def test_set_inside_a_value_that_is_not_a_table_is_refused(read, chosen):
    with pytest.raises(UsageError, match=r"training\.optimizer"):
        chosen("training.optimizer.lr=1", base=read('[training]\noptimizer = "SGD"\n'))


SPACE = """\
[data.space.variables.T]
low = 900
high = 1800
"""


@pytest.mark.parametrize("base", [SPACE, "[data.space]\nvariables = { T = { low = 900, high = 1800 } }\n"])
def test_set_and_unset_reach_into_a_parameter_that_is_a_table(read, base):
    experiment = read(base)
    experiment.set("data.space.variables.T.high=2000")
    experiment.set("data.space.variables.p.choices=['a', 'b']")
    experiment.set("data.space.variables.p.unit=Pa")
    experiment.unset("data.space.variables.T.low")
    wanted = {"T": {"high": 2000}, "p": {"choices": ["a", "b"], "unit": "Pa"}}
    assert experiment.parts["data"][0].values["variables"] == wanted
    experiment.set("data.space.variables={x = {low = 0}}")
    experiment.set("data.space.variables.x.high=1")
    assert experiment.parts["data"][0].values["variables"] == {"x": {"low": 0, "high": 1}}
    with pytest.raises(UsageError, match=r"x\.low\.y=1: data\.space\.variables\.x\.low is 0 here"):
        experiment.set("data.space.variables.x.low.y=1")
    with pytest.raises(UsageError, match=r"variables\.q: this experiment does not give it"):
        experiment.unset("data.space.variables.q")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_a_regular_file_is_read(tmp_path, kind):
    path = tmp_path / "e.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # reading it would wait for a writer
    else:
        path = Path("/dev/zero")  # reading it would never end
    with pytest.raises(UsageError, match="not a regular file"):
        Experiment.read(path)
