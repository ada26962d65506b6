"""What all contracts share: claims, expected failures, the checks of the plugin; and the page that explains them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import alcore_testing as testing
import numpy as np
import pytest
import torch
import torch._inductor.test_operators  # before a run of pytest inside a test imports it, and a later test again
from alcore_testing import Contract, QueryContract, ToyQuery, build_driver, peak_memory, requires, untouched
from alcore_testing.contract import CaseContract

from alcore.plugins import installed

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"
QUIET = ("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:timeout")

# -- claims and expected failures -----------------------------------------------------------------------


class Even(Contract):
    """A contract of numbers."""

    number = 2
    signed = False

    def test_it_is_even(self) -> None:
        assert self.number % 2 == 0

    @requires("signed")
    def test_it_is_negative(self) -> None:
        assert self.number < 0


def names_of(contract: type) -> set[str]:
    return {name for name in dir(contract) if name.startswith("test_") and getattr(contract, name) is not None}


def test_what_is_not_claimed_is_not_tested() -> None:
    class Plain(Even):
        pass

    class Signed(Plain):
        signed = True

    class Unsigned(Signed):
        signed = False

    assert names_of(Plain) == names_of(Unsigned) == {"test_it_is_even"}
    assert names_of(Signed) == {"test_it_is_even", "test_it_is_negative"}


def test_a_test_that_is_overridden_stays() -> None:
    class Own(Even):
        def test_it_is_negative(self) -> None:
            pass

    class Sub(Own):
        pass

    assert names_of(Own) == names_of(Sub) == {"test_it_is_even", "test_it_is_negative"}


def test_only_plugins_are_checked_as_such() -> None:
    class Named(QueryContract):
        name = "mine"

    class Nameless(QueryContract):
        pass

    assert names_of(Named) - names_of(Nameless) == {
        "test_plugin_offers_what_make_returns",
        "test_parameters_have_types_defaults_and_documentation",
    }


def test_an_expected_failure_of_a_test_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.expected_failures names test_it_is_odd, which is not one"):
        type("Wrong", (Even,), {"expected_failures": {"test_it_is_odd": "because"}})


def test_no_case_that_fits() -> None:
    class Nothing(CaseContract):
        outputs: ClassVar[tuple[str, ...]] = ("values",)  # and the tasks are those of classifiers

    with pytest.raises(TypeError, match="Nothing: no case fits"):
        Nothing.case()


def test_expected_failures_are_strict(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from alcore_testing import Contract

        class Even(Contract):
            number = 2

            def test_it_is_even(self):
                assert self.number % 2 == 0

            @pytest.mark.parametrize("other", [2, 3])
            def test_its_multiples(self, other):
                assert self.number * other % 4 == 0

        class TestOdd(Even):
            number = 3
            expected_failures = {"test_it_is_even": "it is odd", "test_its_multiples": "so are some of its multiples"}

        class TestOneCase(Even):
            expected_failures = {"test_its_multiples[3]": "2 * 3 = 6"}

        class TestRepaired(Even):
            number = 4
            expected_failures = {"test_it_is_even": "it was odd once"}
        """
    )
    result = pytester.runpytest_inprocess("-rxX", *QUIET)
    result.assert_outcomes(passed=4, xfailed=4, failed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*it was odd once*", "XFAIL*TestOdd::test_it_is_even - it is odd"])


# -- the checks of the plugin ---------------------------------------------------------------------------

INIT = """
import alcore

@alcore.hookimpl
def alcore_query_strategies():
    return {"toy": "alcore_toy.query:Toy"}
"""
QUERY = '''
from alcore_testing import ToyQuery

class Toy(ToyQuery):
    """Ask for the first candidates.

    Parameters
    ----------
    max_samples
        How many samples to ask for.
    {documented}
        What else to say.
    """

    def __init__(self, max_samples: int = 3, *, {parameter}) -> None:
        super().__init__(max_samples)
'''


@pytest.mark.parametrize(
    ("parameter", "documented", "test", "words"),
    [
        ("word: str = 'a'", "word", None, None),
        ("words: tuple[str, ...] = ('a',)", "words", None, None),
        ("word='a'", "word", "test_parameters_have_types_defaults_and_documentation", "word has no type hint"),
        ("word: str", "word", "test_parameters_have_types_defaults_and_documentation", "word has no default"),
        ("word: str = 'a'", "w", "test_parameters_have_types_defaults_and_documentation", "word isn't in the"),
        ("word: int = 0.5", "word", "test_parameters_have_types_defaults_and_documentation", "can't stand in"),
        ("word: str = 'a'", "word", "test_plugin_offers_what_make_returns", "isinstance"),
    ],
)
def test_the_plugin_is_checked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    errors_of: Callable[[type, str], list[str]],
    parameter: str,
    documented: str,
    test: str | None,
    words: str | None,
) -> None:
    site = tmp_path / "site"
    (site / "alcore_toy").mkdir(parents=True)
    (site / "alcore_toy" / "__init__.py").write_text(INIT)
    (site / "alcore_toy" / "query.py").write_text(QUERY.format(parameter=parameter, documented=documented))
    about = site / "alcore_toy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: alcore-toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[alcore]\ntoy = alcore_toy\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    for name in ("alcore_toy", "alcore_toy.query"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)

    def make(self: Contract, **parameters: Any) -> Any:
        return ToyQuery() if test == "test_plugin_offers_what_make_returns" else installed().make("query", "toy")

    contract = type("Toy", (QueryContract,), {"name": "toy", "make": make})
    every = [name for name, (_, claim) in Contract._conditional.items() if claim == "name"]
    assert len(every) == 2
    if test is None or words is None:
        assert [errors_of(contract, name) for name in every] == [[], []]
    else:
        assert words in "".join(errors_of(contract, test))


# -- tools ----------------------------------------------------------------------------------------------


def test_memory_is_counted_until_it_is_freed() -> None:
    there = torch.zeros(2**18)  # a MiB
    with peak_memory() as memory:
        view = there[: 2**17]
    assert memory.tensors == 0
    with peak_memory() as memory:
        for _ in range(4):
            view = there * 2
            view = view[1:] + 1
    assert 1.9 * 2**20 < memory.tensors <= 3 * 2**20
    with peak_memory() as memory:
        kept = [(there * 2)[:1] for _ in range(4)]  # a view keeps all of it
    assert memory.tensors == 4 * 2**20
    assert len(kept) == 4
    with peak_memory() as memory:
        array = np.zeros(2**17)
    assert memory.tensors == 0
    assert array.nbytes <= memory.other < 1.1 * array.nbytes + 2**16


def test_untouched_without_a_driver_looks_at_the_process() -> None:
    with untouched():
        torch.zeros(3)
    with pytest.raises(AssertionError, match="global generators"), torch.random.fork_rng(), untouched():
        torch.rand(3)
    with untouched(generators=False), torch.random.fork_rng():
        torch.rand(3)


def test_a_driver_in_one_line(tmp_path: Path) -> None:
    driver = build_driver(tmp_path, ToyQuery(2), samples_per_step=4, seed=5)
    assert driver.config.seed == 5
    driver.run(testing.toys.toy_loss)
    assert len(driver.train_datapool) == 6 + 3 * 4


def test_examples_must_print(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nfrom pathlib import Path\nx = 3\n```\n```python\nPath('here').touch()\nprint(x)\n```\n")
    names = testing.run_examples(page, tmp_path)
    assert (names["x"], names["printed"]) == (3, "3\n")
    assert (tmp_path / "here").exists()
    page.write_text("```python\nx = 3\n```\n")
    with pytest.raises(AssertionError, match="prints nothing"):
        testing.run_examples(page, tmp_path)


def test_the_toys_as_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from alcore_testing.fixtures import *")
    pytester.makepyfile(
        """
        from alcore_testing import ToyQuery, ask, prepare

        def test_they_work(alcore_driver, alcore_pool, alcore_learner):
            driver = alcore_driver(ToyQuery(2), pool=alcore_pool("binary"), learner=alcore_learner("binary"))
            assert ask(prepare(driver)) == [0, 2]
        """
    )
    pytester.runpytest_inprocess(*QUIET).assert_outcomes(passed=1)


# -- the page -------------------------------------------------------------------------------------------


def test_the_page_names_everything() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in testing.__all__ if f"`{name}" not in text]
    claims = {
        name
        for contract in vars(testing).values()
        if isinstance(contract, type) and issubclass(contract, Contract)
        for base in contract.__mro__
        for name in getattr(base, "__annotations__", {})
        if not name.startswith("_") and name not in ("kind",)
    }
    assert len(claims) > 15
    assert not [name for name in sorted(claims) if f"`{name}`" not in text]


def test_the_example_of_the_page_passes_its_contract(pytester: pytest.Pytester) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    pytester.makepyfile(test_example=code)
    outcomes = pytester.runpytest_inprocess(*QUIET).parseoutcomes()
    assert outcomes.pop("passed") > 40
    assert set(outcomes) <= {"warnings"}
