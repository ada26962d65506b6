"""Experiments: who wins (signature < data < file < flags and --set), what is refused, and digests."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alcore import Data, DataInfo, TensorPool
from alcore.errors import PluginError, UsageError
from alcore.experiment import DEFAULTS, Experiment
from alcore.experiment.resolve import load_data, resolve
from alcore.plugins import Plugin, Registry

INFO = DataInfo("classification", 2, 3, (3,), ("a", "b"))


def pool(seed=0):
    return TensorPool(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), labeled=[0, 1], info=INFO)


def suggesting(defaults):
    def data(path: str = "", seed: int | None = None) -> Data:
        return Data(pool(), info=INFO, defaults=defaults)

    return data


class Query:
    def __init__(self, count: int = 1, mode: str = "signature") -> None:
        self.count, self.mode = count, mode


def learner(info: DataInfo, width: int = 2) -> torch.nn.Module:
    return torch.nn.Linear(info.features, width)


def nothing() -> object:
    return object()


@pytest.fixture
def registry():
    """What the tests choose from; data ``d`` suggests nothing, ``s`` suggests something."""
    suggestions = {
        "driver": {"batch_size": 7, "max_active_learning_steps": 5},
        "training": {"max_training_epochs": 3, "optimizer": {"cls": "SGD", "lr": 0.5, "momentum": 0.1}},
        "query": {"q": {"mode": "data", "count": 9}},
    }
    offers = {
        "data": {"moons": suggesting({}), "d": suggesting({}), "s": suggesting(suggestions)},
        "learner": {"mlp": learner},
        "loop": {"default": nothing},
        "query": {"uq": Query, "q": Query},
        "label": {"dummy": nothing, "other": nothing},
        "metrology": {"f1": nothing},
        "queue": {"fifo": list},
        "stop": {},
        "observe": {},
    }
    return Registry([Plugin("fakes", "1.0", "fakes", "fakes", offers=offers)])


@pytest.fixture
def read(tmp_path):
    def write(text):
        path = tmp_path / "e.toml"
        path.write_text(text)
        return Experiment.read(path)

    return write


def chosen(*sets, base=None, **names):
    experiment = base or Experiment()
    for kind, uses in names.items():
        experiment.choose(kind, uses)
    experiment.complete()
    for text in sets:
        experiment.set(text)
    return experiment


def faults(experiment, registry):
    with pytest.raises(UsageError) as error:
        resolve(experiment, registry)
    return str(error.value)


def test_nothing_at_all_is_the_standard_run(registry):
    experiment = chosen()
    assert {kind: [part.use for part in parts] for kind, parts in experiment.parts.items()} == DEFAULTS
    resolved = resolve(experiment, registry)
    assert resolved.settings.driver.batch_size == 32
    assert resolved.data.info is INFO
    assert resolved.values["query.uq"] == {}


def test_data_come_before_the_signature(registry):
    resolved = resolve(chosen(data=["s"], query=["q"]), registry)
    assert resolved.values["query.q"] == {"mode": "data", "count": 9}
    assert (resolved.settings.driver.batch_size, resolved.settings.training.max_training_epochs) == (7, 3)
    assert resolved.settings.optimizer_cls is torch.optim.SGD
    assert resolved.settings.optimizer_kwargs == {"lr": 0.5, "momentum": 0.1}


FILE = """
[driver]
batch_size = 8
[training.optimizer]
lr = 0.25
[data.s]
[query.q]
mode = "file"
"""


def test_the_file_comes_before_data_and_leaves_the_rest(registry, read):
    resolved = resolve(chosen(base=read(FILE)), registry)
    assert resolved.values["query.q"] == {"mode": "file", "count": 9}
    assert resolved.settings.driver.batch_size == 8
    assert resolved.settings.driver.max_active_learning_steps == 5
    assert resolved.settings.optimizer_kwargs == {"lr": 0.25, "momentum": 0.1}


def test_the_command_line_comes_before_the_file_and_leaves_the_rest(registry, read):
    sets = ["query.q.mode=typed", "driver.batch_size=9", "training.optimizer.lr=0.125"]
    resolved = resolve(chosen(*sets, base=read(FILE)), registry)
    assert resolved.values["query.q"] == {"mode": "typed", "count": 9}
    assert resolved.settings.driver.batch_size == 9
    assert resolved.settings.driver.max_active_learning_steps == 5
    assert resolved.settings.optimizer_kwargs == {"lr": 0.125, "momentum": 0.1}


def test_the_last_of_two_sets_counts(registry):
    resolved = resolve(chosen("query.uq.count=2", "query.uq.count=3"), registry)
    assert resolved.values["query.uq"] == {"count": 3}


@pytest.mark.parametrize("argument", ["momentum=0.75", "nesterov=true", "lr=2"])
def test_arguments_of_the_suggested_optimizer_may_be_set(registry, argument):
    """They are checked against the class that is used, not against the one that would be without data."""
    name, _, value = argument.partition("=")
    resolved = resolve(chosen(f"training.optimizer.{argument}", data=["s"]), registry)
    assert resolved.settings.optimizer_cls is torch.optim.SGD
    assert resolved.settings.optimizer_kwargs[name] == {"true": True}.get(value) or float(value)


def test_another_optimizer_takes_none_of_the_suggested_arguments(registry):
    resolved = resolve(chosen("training.optimizer.cls=Adam", data=["s"]), registry)
    assert resolved.settings.optimizer_cls is torch.optim.Adam
    assert resolved.settings.optimizer_kwargs == {}
    resolved = resolve(chosen("training.optimizer.cls=SGD", data=["s"]), registry)
    assert resolved.settings.optimizer_kwargs == {"lr": 0.5, "momentum": 0.1}


LEVELS = st.fixed_dictionaries({}, optional={level: st.integers(1, 99) for level in ("data", "file", "set")})


@given(LEVELS)
def test_the_nearest_level_that_says_something_wins(tmp_path_factory, levels):
    data = suggesting({"query": {"uq": {"count": levels["data"]}}} if "data" in levels else {})
    offers = {"data": {"moons": data}, "learner": {"mlp": learner}, "loop": {"default": nothing},
              "query": {"uq": Query}, "label": {"dummy": nothing}, "metrology": {"f1": nothing},
              "queue": {"fifo": list}}  # fmt: skip
    path = tmp_path_factory.mktemp("levels") / "e.toml"
    path.write_text(f"[query.uq]\ncount = {levels['file']}\n" if "file" in levels else "")
    sets = [f"query.uq.count={levels['set']}"] if "set" in levels else []
    resolved = resolve(chosen(*sets, base=Experiment.read(path)), Registry([Plugin("f", "1", "f", "f", offers=offers)]))
    expected = levels.get("set", levels.get("file", levels.get("data", 1)))
    assert Query(**resolved.values["query.uq"]).count == expected


def test_choosing_a_part_keeps_what_the_file_says_of_it(registry, read):
    base = read("[query.q]\ncount = 4\n[query.uq]\ncount = 5\n[label.dummy]\n")
    experiment = chosen(base=base, query=["q"], label=["other"])
    assert [(part.where, part.values) for part in experiment.parts["query"]] == [("query.q", {"count": 4})]
    assert [part.where for part in experiment.parts["label"]] == ["label.other"]


def test_a_name_in_the_file_that_uses_another_plugin_is_not_that_plugin(read):
    experiment = chosen(base=read('[query.q]\nuse = "uq"\ncount = 4\n'), query=["q"])
    assert [(part.use, part.values) for part in experiment.parts["query"]] == [("q", {})]


def test_two_instances_of_one_plugin_have_names_of_their_own(registry, read):
    resolved = resolve(read('[query.few]\nuse = "q"\ncount = 1\n[query.many]\nuse = "q"\ncount = 50\n'), registry)
    assert resolved.values["query.few"] == {"count": 1}
    assert resolved.values["query.many"] == {"count": 50}
    experiment = chosen("query.q-2.count=2", query=["q", "q", "uq"])
    assert [part.where for part in experiment.parts["query"]] == ["query.q", "query.q-2", "query.uq"]


def test_an_empty_table_of_strategies_means_none(registry, read):
    experiment = chosen(base=read("[metrology]\n[query]\n"))
    assert experiment.parts["metrology"] == experiment.parts["query"] == []


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[qeury.uq]", ["[qeury]", "did you mean 'query'?"]),
        ("[drivers]\nseed = 1", ["[drivers]", "did you mean 'driver'?"]),
        ("seed = 1", ["'seed'", "outside any table"]),
        ("[query]\nuq = 3", ["query.uq", "[query.uq]"]),
        ("[driver", ["TOML"]),
        ("[driver]\nseed = 1\nseed = 2", ["TOML"]),
    ],
)
def test_what_is_no_experiment_is_refused_by_file_and_place(read, text, fragments):
    with pytest.raises(UsageError) as error:
        read(text)
    for fragment in ["e.toml", *fragments]:
        assert fragment in str(error.value)


def test_an_array_of_tables_is_refused_with_the_right_form(read):
    with pytest.raises(UsageError, match=r"\[query\.NAME\]|\[query\.uq\]"):
        read('[[query]]\nuse = "uq"\n')


def test_a_file_that_can_not_be_read_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    for name in ("absent.toml", "latin.toml", "."):
        with pytest.raises(UsageError, match="can't be read"):
            Experiment.read(tmp_path / name)


@pytest.mark.parametrize("kind", ["data", "learner", "loop", "label"])
def test_there_is_one_of_each_single_kind(kind):
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
        ("query.uq.count.more=3", "write query.name.parameter=value"),
        ("qeury.uq.count=3", "did you mean 'query'?"),
        ("query.up.count=3", "did you mean 'uq'?"),
        ("query.q.count=3", "--query q"),
    ],
)
def test_a_set_that_leads_nowhere_is_refused(text, fragment):
    with pytest.raises(UsageError) as error:
        chosen(text)
    assert f"--set {text}" in str(error.value)
    assert fragment in str(error.value)


def test_a_set_inside_something_that_is_no_table_is_refused(registry, read):
    with pytest.raises(UsageError, match=r"training\.optimizer"):
        resolve(chosen("training.optimizer.lr=1", base=read('[training]\noptimizer = "SGD"\n')), registry)


def test_a_value_may_hold_equals_and_spaces(registry):
    resolved = resolve(chosen("query.uq.mode = a=b c"), registry)
    assert resolved.values["query.uq"] == {"mode": "a=b c"}


def test_all_faults_come_at_once(registry):
    text = faults(
        chosen("query.qq.x=1", "driver.batch_sice=1", "training.optimizer.cls=Adamm", "metrology.f1.x=1",
               "learner.mlp.width=a", query=["qq"]),
        registry,
    )  # fmt: skip
    assert text.startswith("5 things are wrong:\n")
    for fragment in ("'qq'", "'batch_size'", "'Adam'", "metrology.f1 has no parameter 'x'", "learner.mlp.width is 'a'"):
        assert fragment in text


def test_one_fault_is_one_sentence(registry):
    text = faults(chosen("query.uq.count=a"), registry)
    assert text == "query.uq.count is 'a'; it must be int."


def test_what_data_suggest_is_checked_too(registry):
    registry.plugins[0].offers["data"]["moons"] = suggesting({"query": {"uq": {"cuont": 3}}})
    assert "has no parameter 'cuont'" in faults(chosen(), registry)


def test_nothing_is_made_before_everything_is_checked(registry):
    def data() -> Data:
        raise AssertionError("made although the query is unknown")

    registry.plugins[0].offers["data"]["moons"] = data
    assert "'nearest'" in faults(chosen(query=["nearest"]), registry)


def test_code_that_a_file_names_is_not_imported_unasked(registry, read):
    experiment = read('[learner.net]\nuse = "surely_not_here:net"\n')
    with pytest.raises(UsageError, match="--allow-code"):
        resolve(experiment, registry)
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        resolve(read('[learner.net]\nuse = "surely_not_here:net"\n'), registry, allow_code=True)
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        resolve(chosen(learner=["surely_not_here:net"]), registry)


@pytest.mark.parametrize("kind", list(DEFAULTS))
def test_code_may_not_enter_through_any_table(registry, read, kind):
    with pytest.raises(UsageError, match=rf"\[{kind}\.x\].*--allow-code"):
        resolve(read(f'[{kind}.x]\nuse = "os:abort"\n'), registry)


def test_code_of_the_users_own_is_called_by_its_name(registry):
    experiment = chosen("learner.Linear.out_features=3", "learner.Linear.in_features=2", learner=["torch.nn:Linear"])
    resolved = resolve(experiment, registry)
    assert resolved.factories["learner.Linear"] is torch.nn.Linear
    assert resolved.values["learner.Linear"] == {"in_features": 2, "out_features": 3}


def test_data_that_return_something_else_are_refused(registry):
    registry.plugins[0].offers["data"]["moons"] = lambda: [1, 2]
    assert "data.moons gave a list" in faults(chosen(), registry)


def test_data_get_the_seed_of_the_run_unless_they_have_one(registry):
    seeds = []

    def data(seed: int | None = None) -> Data:
        seeds.append((seed, torch.initial_seed()))
        return Data(pool(), info=INFO)

    registry.plugins[0].offers["data"]["moons"] = data
    resolve(chosen("driver.seed=5"), registry)
    resolve(chosen("driver.seed=5", "data.moons.seed=6"), registry)
    assert [one for one, _ in seeds] == [5, 6]
    assert seeds[0][1] == seeds[1][1], "the global generators follow the run's seed alone"


def test_a_data_file_that_changed_is_refused(registry, read, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("1,2\n")
    digest = hashlib.sha256(b"1,2\n").hexdigest()
    text = f'[digests]\n"{path}" = "{digest}"\n'
    resolve(chosen(base=read(text)), registry)
    path.write_text("1,3\n")
    assert "points.csv has changed" in faults(chosen(base=read(text)), registry)
    with pytest.raises(UsageError, match="has changed"):
        load_data(chosen(base=read(text)), registry)


def test_data_alone_are_the_data_of_the_run(registry, read):
    experiment = chosen(base=read("[data.s]\n"))
    data = load_data(experiment, registry)
    assert data.train.labeled_ids.tolist() == resolve(experiment, registry).data.train.labeled_ids.tolist() == [0, 1]


def test_a_refusal_is_a_usage_error(registry):
    with pytest.raises(UsageError) as error:
        resolve(chosen(query=["nearest"]), registry)
    assert error.value.exit_code == 2
    assert issubclass(PluginError, UsageError)
