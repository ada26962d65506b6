"""`resolve`: which value wins (signature < data < file < flags and --set), what is refused, and the data."""

from __future__ import annotations

import collections
import hashlib
import tomllib
import types
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alcore import Data, DataInfo
from alcore.errors import PluginError, UsageError
from alcore.experiment import STANDARD_PARTS, Experiment, Resolved, load_data, resolve, to_toml
from alcore.plugins.registry import Plugin
from alcore.plugins.signatures import ParameterTable


@pytest.fixture
def faults(registry):
    """Return the message of an experiment that is refused."""

    def message(experiment):
        with pytest.raises(UsageError) as error:
            resolve(experiment, registry)
        return str(error.value)

    return message


def values_of(resolved: Resolved, where: str) -> dict[str, Any]:
    """Return the checked values of the part whose table has this name."""
    (values,) = [part.values for parts in resolved.parts.values() for part in parts if part.given.where == where]
    return values


# -- which value wins ------------------------------------------------------------------------------------------


def test_standard_run_has_the_defaults_of_the_command(registry, chosen):
    resolved = resolve(chosen(), registry)
    assert resolved.settings.driver["batch_size"] == 32
    assert resolved.data.info.features == 3
    assert values_of(resolved, "query.uq") == {}


def test_data_wins_over_signature(registry, chosen):
    resolved = resolve(chosen(data=["s"], query=["q"]), registry)
    assert values_of(resolved, "query.q") == {"mode": "data", "count": 9}
    assert resolved.settings.driver["batch_size"] == 7
    assert resolved.settings.training["max_training_epochs"] == 3
    assert resolved.settings.optimizer.optimizer_cls is torch.optim.SGD
    assert resolved.settings.optimizer.optimizer_kwargs == {"lr": 0.5, "momentum": 0.1}


def test_suggestion_for_all_parts_of_a_kind_is_taken_by_those_that_have_the_parameter(registry, chosen, suggest):
    suggestions = {"query": {"*": {"count": 3, "nothing": 1}, "q": {"mode": "data"}}, "stop": {"*": {"count": 1}}}
    registry.plugins[0].offers["data"]["s"] = suggest(suggestions)
    resolved = resolve(chosen("query.q-2.count=8", data=["s"], query=["q", "q", "uq"]), registry)
    assert values_of(resolved, "query.q") == {"count": 3, "mode": "data"}
    assert values_of(resolved, "query.q-2") == {"count": 8, "mode": "data"}
    assert values_of(resolved, "query.uq") == {"count": 3}


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        ([], 20),
        (["training.reset_learner=true"], None),
        (["training.reset_learner=false"], 20),
        (["training.reset_learner=true", "training.max_fine_tuning_epochs=5"], 5),
    ],
)
def test_learner_that_begins_anew_trains_as_long_as_at_first_unless_told(registry, chosen, suggest, given, epochs):
    suggestions = {
        "training": {"max_fine_tuning_epochs": 20, "max_training_epochs": 50},
        "driver": {"fine_tuning_lr": 0.1},
    }
    registry.plugins[0].offers["data"]["s"] = suggest(suggestions)
    settings = resolve(chosen(*given, data=["s"]), registry).settings
    assert settings.training["max_training_epochs"] == 50
    assert settings.training["max_fine_tuning_epochs"] == epochs
    assert settings.driver["fine_tuning_lr"] == (None if "training.reset_learner=true" in given else 0.1)


@pytest.mark.parametrize(
    ("given", "built"), [([], 0), (["training.optimizer.lr=0.25"], 1), (["training.scheduler.cls=ConstantLR"], 1)]
)
def test_optimizer_is_tried_out_where_the_user_says_something_of_it(registry, chosen, monkeypatch, given, built):
    made, original = [], torch.optim.Optimizer.__init__

    def spy(*args, **kwargs):
        made.append(args[0])
        original(*args, **kwargs)

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", spy)
    resolve(chosen(*given, data=["s"]), registry)
    assert len(made) == built


FILE = """
[driver]
batch_size = 8
[training.optimizer]
lr = 0.25
[data.s]
[query.q]
mode = "file"
"""


def test_file_wins_over_data_and_leaves_the_rest(registry, read, chosen):
    resolved = resolve(chosen(base=read(FILE)), registry)
    assert values_of(resolved, "query.q") == {"mode": "file", "count": 9}
    assert resolved.settings.driver["batch_size"] == 8
    assert resolved.settings.driver["max_active_learning_steps"] == 5
    assert resolved.settings.optimizer.optimizer_kwargs == {"lr": 0.25, "momentum": 0.1}


def test_set_wins_over_file_and_leaves_the_rest(registry, read, chosen):
    sets = ["query.q.mode=typed", "driver.batch_size=9", "training.optimizer.lr=0.125"]
    resolved = resolve(chosen(*sets, base=read(FILE)), registry)
    assert values_of(resolved, "query.q") == {"mode": "typed", "count": 9}
    assert resolved.settings.driver["batch_size"] == 9
    assert resolved.settings.driver["max_active_learning_steps"] == 5
    assert resolved.settings.optimizer.optimizer_kwargs == {"lr": 0.125, "momentum": 0.1}


def test_last_of_two_sets_wins(registry, chosen):
    resolved = resolve(chosen("query.uq.count=2", "query.uq.count=3"), registry)
    assert values_of(resolved, "query.uq") == {"count": 3}


def test_suggested_table_is_merged_into_the_users_table(registry, suggest, read, chosen):
    registry.plugins[0].offers["data"]["moons"] = suggest({"query": {"uq": {"table": {"a": 1, "b": {"c": 2, "d": 3}}}}})
    resolved = resolve(chosen(base=read("[query.uq]\ntable = {b = {c = 4}}\n")), registry)
    assert values_of(resolved, "query.uq") == {"table": {"a": 1, "b": {"c": 4, "d": 3}}}


@pytest.mark.parametrize("argument", ["momentum=0.75", "nesterov=true", "lr=2"])
def test_argument_of_suggested_optimizer_is_checked_against_its_class(registry, chosen, argument):
    name, _, value = argument.partition("=")
    optimizer = resolve(chosen(f"training.optimizer.{argument}", data=["s"]), registry).settings.optimizer
    assert optimizer.optimizer_cls is torch.optim.SGD
    assert optimizer.optimizer_kwargs[name] == {"true": True}.get(value) or float(value)


@pytest.mark.parametrize(("cls", "kwargs"), [("Adam", {}), ("SGD", {"lr": 0.5, "momentum": 0.1})])
def test_suggested_arguments_go_to_the_suggested_optimizer_only(registry, chosen, cls, kwargs):
    optimizer = resolve(chosen(f"training.optimizer.cls={cls}", data=["s"]), registry).settings.optimizer
    assert optimizer.optimizer_cls is getattr(torch.optim, cls)
    assert optimizer.optimizer_kwargs == kwargs


LEVELS = st.fixed_dictionaries({}, optional={level: st.integers(1, 99) for level in ("data", "file", "set")})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LEVELS)
def test_nearest_level_that_gives_a_value_wins(registry, suggest, tmp_path_factory, chosen, levels):
    suggested = {"query": {"uq": {"count": levels["data"]}}} if "data" in levels else {}
    registry.plugins[0].offers["data"]["moons"] = suggest(suggested)
    path = tmp_path_factory.mktemp("levels") / "e.toml"
    path.write_text("[query.uq]\n" + (f"count = {levels['file']}\n" if "file" in levels else ""))
    sets = [f"query.uq.count={levels['set']}"] if "set" in levels else []
    resolved = resolve(chosen(*sets, base=Experiment.read(path)), registry)
    expected = levels.get("set", levels.get("file", levels.get("data")))
    assert values_of(resolved, "query.uq").get("count") == expected


def test_two_parts_of_one_plugin_have_values_of_their_own(registry, read):
    resolved = resolve(read('[query.few]\nuse = "q"\ncount = 1\n[query.many]\nuse = "q"\ncount = 50\n'), registry)
    assert values_of(resolved, "query.few") == {"count": 1}
    assert values_of(resolved, "query.many") == {"count": 50}


def test_value_may_hold_equals_and_spaces(registry, chosen):
    assert values_of(resolve(chosen("query.uq.mode = a=b c"), registry), "query.uq") == {"mode": "a=b c"}


# -- what is refused, and when ---------------------------------------------------------------------------------


def test_all_faults_come_at_once(faults, chosen):
    text = faults(
        chosen("query.qq.x=1", "driver.batch_sice=1", "training.optimizer.cls=Adamm", "metrology.f1.x=1",
               "learner.mlp.width=a", "training.max_training_epochs=-1", query=["qq"])
    )  # fmt: skip
    assert text.startswith("6 things are wrong:\n")
    for fragment in ("'qq'", "'batch_size'", "'Adam'", "metrology.f1 has no parameter 'x'", "learner.mlp.width is 'a'",
                     "training.max_training_epochs is -1"):  # fmt: skip
        assert fragment in text


def test_one_fault_is_one_sentence(faults, chosen):
    assert faults(chosen("query.uq.count=a")) == "query.uq.count is 'a'; it must be int."


@pytest.mark.parametrize(
    "change",
    [
        {"query": ["nearest"]},
        "query.uq.count=a",
        "driver.batch_size=0",
        "driver.queue=fivo",
        "driver.device=quantum",
        "training.class_weights=[-1]",
        "training.optimizer.cls=Adamm",
    ],
    ids=str,
)
def test_fault_that_needs_no_data_comes_before_the_data_is_made(registry, faults, chosen, change):
    def data() -> Data:
        raise AssertionError("the data was made")

    registry.plugins[0].offers["data"]["moons"] = data
    assert faults(chosen(change) if isinstance(change, str) else chosen(**change))


def test_suggestions_of_data_are_checked(registry, suggest, faults, chosen):
    suggestions = {"query": {"uq": {"cuont": 3}}, "driver": {"batch_size": 0, "queue": "fivo"}}
    registry.plugins[0].offers["data"]["moons"] = suggest(suggestions)
    text = faults(chosen())
    for fragment in ("has no parameter 'cuont'", "driver.batch_size is 0", "did you mean 'fifo'?"):
        assert fragment in text


def test_each_value_is_checked_once(registry, monkeypatch, chosen):
    checked = collections.Counter()
    original = ParameterTable.validate

    def counting(self, values, where, **options):
        checked.update(f"{where}.{name}" for name in values)
        return original(self, values, where, **options)

    monkeypatch.setattr(ParameterTable, "validate", counting)
    resolve(chosen("query.q.count=1", "driver.batch_size=3", data=["s"], query=["q"]), registry)
    given, suggested = ["query.q.count", "driver.batch_size"], ["query.q.mode", "driver.max_active_learning_steps"]
    assert checked == collections.Counter([*given, *suggested, "training.max_training_epochs"])


def test_code_in_a_file_is_not_imported_unasked(registry, read, chosen):
    with pytest.raises(UsageError, match="--allow-code"):
        resolve(read('[learner.net]\nuse = "surely_not_here:net"\n'), registry)
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        resolve(read('[learner.net]\nuse = "surely_not_here:net"\n'), registry, allow_code=True)
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        resolve(chosen(learner=["surely_not_here:net"]), registry)


@pytest.mark.parametrize("kind", list(STANDARD_PARTS))
def test_no_table_imports_code_unasked(registry, read, kind):
    with pytest.raises(UsageError, match=rf"\[{kind}\.x\].*--allow-code"):
        resolve(read(f'[{kind}.x]\nuse = "os:abort"\n'), registry)


class RunsCode:
    """A label strategy of which two parameters name code."""

    code_parameters = frozenset({"program", "flags"})
    renamed_parameters: ClassVar = {"command": "program"}

    def __init__(self, program: str = "", flags: list[str] | None = None, price: float = 1.0) -> None: ...

    def attach(self, driver): ...

    def label(self, requests, answers): ...


@pytest.fixture
def with_code(registry):
    registry.plugins[0].offers["label"]["solve"] = RunsCode
    return registry


@pytest.mark.parametrize("given", ["program = 'rm -r {x}'", "command = 'rm -r {x}'", "flags = ['--wrap=rm']"])
def test_parameter_that_names_code_is_not_taken_from_a_file_unasked(with_code, read, given):
    text = f"[label.solve]\nprice = 2.0\n{given}\n"
    with pytest.raises(UsageError, match=r"^\[label\.solve\] .*rm.* names code to run.* --allow-code .*--set"):
        resolve(read(text), with_code)
    assert resolve(read(text), with_code, allow_code=True).names_code


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        ("program = './solve {x}'", "'label.solve.program=./solve {x}'"),
        ("flags = ['-a', '-b c']", """'label.solve.flags=["-a", "-b c"]'"""),
    ],
)
def test_fault_says_what_to_type(with_code, read, chosen, given, typed):
    with pytest.raises(UsageError) as error:
        resolve(read(f"[label.solve]\n{given}\n"), with_code)
    assert str(error.value).endswith(f"with --set {typed}.")
    resolved = resolve(chosen(typed.strip("'"), label=["solve"]), with_code)
    assert values_of(resolved, "label.solve") == tomllib.loads(given)


def test_parameter_that_names_code_is_taken_from_the_command_line(with_code, chosen, read):
    resolved = resolve(chosen("label.solve.program=./solve {x}", label=["solve"]), with_code)
    assert values_of(resolved, "label.solve") == {"program": "./solve {x}"}
    assert resolved.names_code
    experiment = read("[label.solve]\nprogram = 'rm'\nprice = 2.0\n")
    experiment.set("label.solve.program=./solve")  # what is typed replaces what the file says
    assert values_of(resolve(experiment, with_code), "label.solve") == {"program": "./solve", "price": 2.0}


def test_file_without_code_needs_no_permission(with_code, read):
    resolved = resolve(read("[label.solve]\nprice = 2.0\nprogram = ''\nflags = []\n"), with_code)
    assert not resolved.names_code


def test_users_own_code_is_called_by_its_name(registry, chosen):
    experiment = chosen("learner.Linear.out_features=3", "learner.Linear.in_features=2", learner=["torch.nn:Linear"])
    resolved = resolve(experiment, registry)
    assert resolved.parts["learner"][0].factory is torch.nn.Linear
    assert values_of(resolved, "learner.Linear") == {"in_features": 2, "out_features": 3}


def test_refusal_is_a_usage_error(registry, chosen):
    with pytest.raises(UsageError) as error:
        resolve(chosen(query=["nearest"]), registry)
    assert error.value.exit_code == 2
    assert issubclass(PluginError, UsageError)


# -- data ------------------------------------------------------------------------------------------------------


def test_data_factory_that_returns_something_else_is_refused(registry, faults, chosen):
    registry.plugins[0].offers["data"]["moons"] = lambda: [1, 2]
    assert "data.moons gave a list" in faults(chosen())


def test_data_whose_info_is_something_else_is_refused(registry, suggest, faults, chosen):
    data = suggest({})()
    data.info = {"classes": 2}
    registry.plugins[0].offers["data"]["moons"] = lambda: data
    assert "data.moons gave Data whose info is a dict; it is an alcore.DataInfo" in faults(chosen())


class Silent:
    """A pool that doesn't say what its samples are."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3), torch.tensor(index)

    def append(self, item: Any) -> None: ...


def test_data_without_info_has_that_of_its_pools(registry, chosen):
    info = DataInfo("regression", 0, 3, (3,))
    registry.plugins[0].offers["data"]["moons"] = lambda: Data(Silent(), unlabeled=types.SimpleNamespace(info=info))
    resolved = resolve(chosen(), registry)
    assert resolved.data.info is info
    assert resolved.data.train.info is info, "the run asks its pools"


def test_pool_without_info_gets_that_of_its_data(registry, chosen):
    info = DataInfo("classification", 2, 3, (3,))
    registry.plugins[0].offers["data"]["moons"] = lambda: Data(Silent(), info=info)
    assert resolve(chosen(), registry).data.train.info is info


class Errors:
    """A metrology strategy for regressions."""

    def __init__(self, info: DataInfo, noise: float = 0.5) -> None:
        self.noise = noise


@pytest.fixture
def regression(registry, suggest):
    """The registry, whose data is a regression."""
    data = suggest({})()
    data.info = DataInfo("regression", 0, 3, (3,))
    registry.plugins[0].offers["data"]["moons"] = lambda: data
    return registry


def test_standard_metrology_of_a_regression_is_the_one_of_that_name(regression, chosen):
    regression.plugins[0].offers["metrology"]["regression"] = Errors
    resolved = resolve(chosen(), regression)
    assert [(part.given.where, part.factory) for part in resolved.parts["metrology"]] == [
        ("metrology.regression", Errors)
    ]
    assert "[metrology.regression]\nnoise = 0.5" in to_toml(resolved)


def test_regression_without_that_metrology_measures_nothing_and_says_so(regression, chosen):
    with pytest.warns(UserWarning, match=r"measures nothing.*pip install alcore-metrics"):
        assert resolve(chosen(), regression).parts["metrology"] == []


@pytest.mark.parametrize("names", [["f1"], []], ids=str)
def test_chosen_metrology_of_a_regression_stays(regression, chosen, names, recwarn):
    regression.plugins[0].offers["metrology"]["regression"] = Errors
    assert [part.given.use for part in resolve(chosen(metrology=names), regression).parts["metrology"]] == names
    assert not recwarn.list


@pytest.mark.parametrize(("offered", "used"), [(["random", "igs"], "igs"), (["random"], "random"), ([], "uq")], ids=str)
def test_standard_query_of_a_regression_is_the_first_that_is_installed(regression, chosen, offered, used):
    query = regression.plugins[0].offers["query"]
    query |= dict.fromkeys(offered, query["q"])
    assert [part.given.use for part in resolve(chosen(metrology=[]), regression).parts["query"]] == [used]
    assert [part.given.use for part in resolve(chosen(metrology=[], query=["q"]), regression).parts["query"]] == ["q"]


@pytest.mark.parametrize(("setting", "words"), [
    ("query.uq.size=7", ["query.uq.size is given", "'igs'", "--query uq", "--query igs with query.igs.size"]),
    ("metrology.f1.average=micro", ["metrology.f1.average is given", "is none", "--metrology f1"]),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:this run measures nothing")
def test_value_for_a_standard_part_that_another_replaces_is_refused(regression, faults, chosen, setting, words):
    offers = regression.plugins[0].offers
    offers["query"] |= {"igs": offers["query"]["q"], "uq": lambda size=1: None}
    offers["metrology"]["f1"] = lambda average="macro": None
    message = faults(chosen(setting))
    assert all(word in message for word in words), message


def test_value_for_a_standard_part_that_the_data_names_too_is_kept(regression, chosen):
    regression.plugins[0].offers["query"]["uq"] = lambda size=1: None
    regression.plugins[0].offers["data"]["moons"]().parts = {"query": ["uq"]}
    assert values_of(resolve(chosen("query.uq.size=7", metrology=[]), regression), "query.uq") == {"size": 7}


def test_parts_that_suit_the_data_take_the_place_of_standard_ones(regression, chosen):
    offers = regression.plugins[0].offers
    offers["query"]["nearest"] = offers["query"]["q"]
    data = offers["data"]["moons"]()
    data.parts = {"query": ["missing", "nearest"], "start": ["q"], "label": ["missing"]}
    parts = resolve(chosen(metrology=[]), regression).parts
    assert [[part.given.use for part in parts[kind]] for kind in ("query", "start", "label")] == [
        ["nearest"],
        ["q"],
        ["dummy"],
    ]
    own = resolve(chosen(metrology=[], query=["q"], start=["nearest"]), regression).parts
    assert [[part.given.use for part in own[kind]] for kind in ("query", "start")] == [["q"], ["nearest"]]


class Fitted:
    """A learner that is fitted to all labels at once."""

    def __init__(self, width: int = 2) -> None: ...

    def fit_batches(self, batches, generator): ...


@pytest.fixture
def of_fitted(registry, suggest):
    """The registry, whose data suits a learner that is fitted to all labels at once."""
    data = suggest({"training": {"max_training_epochs": 3}, "learner": {"fitted": {"width": 5}}})()
    data.parts = {"learner": ["missing", "fitted"]}
    registry.plugins[0].offers["data"]["moons"] = lambda: data
    registry.plugins[0].offers["learner"]["fitted"] = Fitted
    registry.plugins[0].offers["loop"]["other"] = registry.plugins[0].offers["loop"]["default"]
    return registry


@pytest.mark.parametrize(
    ("names", "used"),
    [({}, "fitted"), ({"loop": ["other"]}, "mlp"), ({"loop": ["default"]}, "mlp"), ({"learner": ["mlp"]}, "mlp")],
    ids=str,
)
def test_learner_that_suits_the_data_is_taken_where_neither_learner_nor_loop_is_chosen(of_fitted, chosen, names, used):
    (learner,) = resolve(chosen(**names), of_fitted).parts["learner"]
    assert learner.given.use == used
    assert learner.values == ({"width": 5} if used == "fitted" else {})


def test_epochs_are_refused_with_a_learner_that_has_none(of_fitted, faults, chosen, read):
    epochs = "training.max_training_epochs=3"
    message = faults(chosen(epochs))
    assert "the standard learner for this data, 'fitted', is fitted to all labels at once" in message
    assert "choose --learner mlp" in message
    assert message == faults(chosen(base=read("[training]\nmax_training_epochs = 3")))
    assert "the learner 'fitted' is fitted to all labels at once" in faults(chosen(epochs, learner=["fitted"]))


def test_epochs_are_taken_with_a_learner_that_the_file_names_and_with_another_loop(of_fitted, chosen, read):
    complete = to_toml(resolve(chosen(), of_fitted))
    assert "[learner.fitted]" in complete
    assert "max_training_epochs" in complete
    assert to_toml(resolve(chosen(base=read(complete)), of_fitted)) == complete
    epochs = "training.max_training_epochs=3"
    assert resolve(chosen(epochs, learner=["fitted"], loop=["other"]), of_fitted).parts["loop"][0].given.use == "other"


def test_standard_metrology_of_a_regression_that_two_plugins_offer_is_refused(regression, faults, chosen):
    more = Plugin("others", "1.0", "others", "others", offers={"metrology": {"regression": Errors}})
    regression.plugins[0].offers["metrology"]["regression"] = Errors
    regression.plugins.append(more)
    assert "others" in faults(chosen())


def test_data_gets_the_seed_of_the_run_unless_it_has_one(registry, suggest, chosen):
    seeds = []

    def data(seed: int | None = None) -> Data:
        seeds.append((seed, torch.initial_seed()))
        return suggest({})()

    registry.plugins[0].offers["data"]["moons"] = data
    resolve(chosen("driver.seed=5"), registry)
    resolve(chosen("driver.seed=5", "data.moons.seed=6"), registry)
    assert [one for one, _ in seeds] == [5, 6]
    assert seeds[0][1] == seeds[1][1], "the global generators follow the run's seed alone"


def test_data_file_that_changed_is_refused(registry, read, faults, chosen, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("1,2\n")
    digests = f'[digests]\n"{path}" = "{hashlib.sha256(path.read_bytes()).hexdigest()}"\n'
    gone = f'"{tmp_path / "gone"}" = "{"0" * 64}"\n'
    resolve(chosen(base=read(digests + gone)), registry)
    path.write_text("1,3\n")
    message = faults(chosen(base=read(digests)))
    assert "points.csv has changed" in message
    assert "[digests]" in message
    with pytest.raises(UsageError, match="has changed"):
        load_data(chosen(base=read(digests)), registry)


def test_load_data_returns_the_data_of_the_run(registry, read, chosen):
    experiment = chosen(base=read("[data.s]\n"))
    data = load_data(experiment, registry)
    assert data.train.labeled_ids.tolist() == resolve(experiment, registry).data.train.labeled_ids.tolist() == [0, 1]


def test_load_data_needs_no_other_part(registry, read):
    assert len(load_data(read('[data.s]\n[learner.net]\nuse = "gone:net"\n[query.absent]\n'), registry).train) == 2
