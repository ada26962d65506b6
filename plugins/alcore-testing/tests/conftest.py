"""Run one test of a contract on a faulty part, without a pytest of its own: that takes milliseconds."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def each_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], Iterator[str]]:
    """Return a function: the errors of one test of a contract, one text for each set of parameters that fails.

    A set is run when its error is asked for, so that who has seen enough saves the others.
    """

    def run(contract: type, test: str) -> Iterator[str]:
        for place, arguments in enumerate(_parameters(getattr(contract, test))):
            values = {"tmp_path": tmp_path / str(place), "monkeypatch": monkeypatch, **arguments}
            values["tmp_path"].mkdir(exist_ok=True)
            method = getattr(contract(), test)
            try:
                method(**{name: values[name] for name in inspect.signature(method).parameters})
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - it is what is looked for
                yield f"{type(error).__name__}: {error}"

    return run


@pytest.fixture
def errors_of(each_error: Callable[[type, str], Iterator[str]]) -> Callable[[type, str], list[str]]:
    """Return a function: the same as a list, of all sets."""
    return lambda contract, test: list(each_error(contract, test))


@pytest.fixture
def check_mutant(each_error: Callable[[type, str], Iterator[str]]) -> Callable[..., None]:
    """Return a function that checks that a contract fails a faulty part in the test that is aimed at it.

    It is called with the contract (or a test class of a correct part), the class of the faulty part, perhaps a method
    ``make`` in place of one that calls this class, and claims. A faulty part says by ``test`` which test fails it, and
    by ``words`` what the error says.
    """

    def check(contract: type, mutant: Any, make: Callable[..., Any] | None = None, **claims: Any) -> None:
        assert mutant.__doc__, "say what is wrong with it"
        members = {"make": make or (lambda _self, *args, **parameters: mutant(*args, **parameters)), **claims}
        others = []
        for error in each_error(type("Claimed", (contract,), members), mutant.test):
            if mutant.words in error:
                return  # the first set that finds it is enough
            others.append(error)
        assert others, f"{mutant.__name__} passes {mutant.test}"
        raise AssertionError(f"none of its errors says {mutant.words!r}: {others}")

    return check


@pytest.fixture
def check_each_test_has_a_mutant() -> Callable[[type, list[Any]], None]:
    """Return a function that checks that no test of a contract's own is without a faulty part that fails it."""

    def check(contract: type, mutants: list[Any]) -> None:
        inherited = {name for base in contract.__mro__[1:] for name in getattr(base, "_conditional", {})}
        own = {name for name in vars(contract) if name.startswith("test_")} - inherited
        assert own == {mutant.test for mutant in mutants}

    return check


def _parameters(test: Any) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each case of a test."""
    axes = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
            values = [case if len(names) > 1 else (case,) for case in mark.args[1]]
            axes.append([dict(zip(names, case, strict=True)) for case in values])
    for chosen in itertools.product(*axes):
        yield {name: value for case in chosen for name, value in case.items()}
