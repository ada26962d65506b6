"""What went wrong, and with which exit code."""

from __future__ import annotations

import pytest

from alcore import errors
from alcore.errors import did_you_mean, reason_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
KINDS.remove(errors.Waiting)  # what a label strategy says, not an error


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_ours_and_has_an_exit_code(kind: type[errors.AlcoreError]) -> None:
    assert issubclass(kind, errors.AlcoreError)
    assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)
    assert str(kind("what, where, remedy")) == "what, where, remedy"


def test_reason_has_the_type_of_foreign_errors_alone() -> None:
    assert reason_of(TypeError("3 is no name.")) == "TypeError: 3 is no name."
    assert reason_of(errors.PluginError("3 is no name.")) == "3 is no name"


def test_wrong_usage_is_a_value_error_and_other_errors_are_not() -> None:
    assert {kind for kind in KINDS if issubclass(kind, ValueError)} == {
        errors.UsageError, errors.PluginError, errors.RunExistsError, errors.RunLockedError, errors.EncodingError,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("ug", ["uq", "Random"], "did you mean 'uq'? There are: Random, uq"),
        ("Moon", ["MoonS-A", "Moons"], "did you mean 'Moons'? There are: MoonS-A, Moons"),
        ("xyz", ["b", "a"], "there are: a, b"),
        ("xyz", [], "there are none"),
    ],
)
def test_the_nearest_word_and_what_there_is(word: str, known: list[str], expected: str) -> None:
    assert did_you_mean(word, iter(known)) == expected
