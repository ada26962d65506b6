"""What the package offers, without loading anything heavy, and that its page tells the truth."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from pathlib import Path

import alcore_tabular
import pytest
from alcore_tabular import TableWarning, table

from alcore.protocols import ChoosablePool

README = Path(__file__).parents[1] / "README.md"


def test_the_hook_names_the_factory() -> None:
    module, name = alcore_tabular.alcore_data()["csv"].split(":")
    assert getattr(sys.modules[module], name) is table


def test_public_names_are_found_and_others_are_not() -> None:
    assert set(alcore_tabular.__all__) <= set(dir(alcore_tabular))
    assert issubclass(TableWarning, UserWarning)
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        _ = alcore_tabular.tabel


def test_every_parameter_has_a_hint_that_resolves_and_a_line_in_the_docstring() -> None:
    hints = typing.get_type_hints(table)
    documented = re.findall(r"^ {4}(\w+)$", table.__doc__.split("Returns")[0], re.MULTILINE)
    assert documented == ["Parameters", *inspect.signature(table).parameters]
    assert set(hints) == {*inspect.signature(table).parameters, "return"}


def test_the_learner_that_suits_depends_on_the_task(rows, write, monkeypatch) -> None:
    assert table(write(rows), target="bought").parts == {"learner": ("deep-ensemble",)}
    numbers = [[*row[:2], "bought" if not place else str(place / 7)] for place, row in enumerate(rows)]
    assert table(write(numbers), target="bought").parts == {"learner": ("gp",)}
    monkeypatch.setattr("alcore_tabular.data._MOST_ROWS_OF_GP", 29)
    assert table(write(numbers), target="bought").parts == {}
    assert table(write(rows), target="bought").parts == {"learner": ("deep-ensemble",)}


def test_the_readme_lists_each_parameter_with_its_default() -> None:
    section = README.read_text().partition("## Parameters")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (`.*?`|required) \|", section, re.MULTILINE))
    for name, parameter in inspect.signature(table).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert told[name] == "required"
        else:
            assert told[name].strip("`").replace('"', "'") == repr(parameter.default)
    assert len(told) == len(inspect.signature(table).parameters)


def test_the_pool_is_one_that_query_strategies_can_choose_from(rows, write) -> None:
    data = table(write(rows), target="bought", initial=6)
    assert isinstance(data.train, ChoosablePool)
    assert (data.train.total, len(data.train), len(data.train.unlabeled_indices())) == (30, 6, 24)
    assert data.val.total == len(data.val) == 10
    assert data.unlabeled is None
    assert data.info == data.train.info == data.val.info
    assert data.info.names == ("no", "yes")
    assert data.info.shape == (data.info.features,) == tuple(data.train[0][0].shape)


def test_defaults_are_a_copy_for_each_run(rows, write) -> None:
    path = write(rows)
    table(path, target="bought").defaults["driver"]["batch_size"] = 1
    assert table(path, target="bought").defaults["driver"]["batch_size"] == 32


def test_a_regression_is_trained_anew_at_each_step_and_a_classification_goes_on(rows, write) -> None:
    path = write(rows)
    assert table(path, target="size").defaults["training"] == {
        "max_training_epochs": 100,
        "reset_learner": True,
        "optimizer": {"cls": "AdamW", "lr": 0.01},
    }
    training = table(path, target="bought").defaults["training"]
    assert (training["max_training_epochs"], training["max_fine_tuning_epochs"]) == (50, 20)
    assert "reset_learner" not in training
