"""What all contracts share: claims, tests that only some claims call for, expected failures, checks of the plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import pytest
import torch

from alcore.plugins import describe_factory, installed, load_factory, parameters_of, validate
from alcore_testing.toys import CASES, Case

F = TypeVar("F", bound=Callable[..., Any])


def requires(claim: str) -> Callable[[F], F]:
    """Mark a test that is there only where the class attribute `claim` is true."""

    def mark(function: F) -> F:
        function._requires = claim  # type: ignore[attr-defined]
        return function

    return mark


class Contract:
    """Base of the contracts; a subclass says what is claimed, and pytest runs every test of the contract on it."""

    kind: ClassVar[str] = ""
    """The kind of part, as in ``alcore plugins``."""
    name: ClassVar[str | None] = None
    """The name that a plugin offers it under; None leaves out the checks of plugin and parameters."""
    expected_failures: ClassVar[dict[str, str]] = {}
    """Tests that fail for now, and why; one that passes after all fails the suite. ``test`` or ``test[case]``."""
    _conditional: ClassVar[dict[str, tuple[Callable[..., Any], str]]] = {}
    """The tests that `requires` marked, with their claims."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Leave out the tests that the claims don't call for; refuse expected failures of tests that don't exist."""
        super().__init_subclass__(**kwargs)
        cls._conditional = _conditional_tests(cls)
        for name, (function, claim) in cls._conditional.items():
            setattr(cls, name, function if getattr(cls, claim) else None)
        gone = [name for name in cls.expected_failures if not callable(getattr(cls, name.partition("[")[0], None))]
        if gone:
            raise TypeError(f"{cls.__name__}.expected_failures names {', '.join(gone)}, which is not one of its tests.")

    @pytest.fixture(autouse=True)
    def _expect_failure(self, request: pytest.FixtureRequest) -> None:
        """Turn `expected_failures` into strict expected failures."""
        for name in {request.node.name, getattr(request.node, "originalname", request.node.name)}:
            if name in self.expected_failures:
                request.applymarker(pytest.mark.xfail(reason=self.expected_failures[name], strict=True))

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Use one thread: tiny batches are slower on more, and results are compared bit by bit."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @requires("name")
    def test_parameters_have_types_defaults_and_documentation(self) -> None:
        """``alcore describe`` has something to say of each parameter, and an experiment file can hold each default."""
        factory = self._factory()
        described = describe_factory(factory)
        assert described["summary"], f"{factory} has no docstring"
        for parameter in parameters_of(factory)[0]:
            assert parameter.hint is not Any, (
                f"parameter {parameter.name} has no type hint, or one that can't be resolved"
            )
            assert parameter.doc, f"parameter {parameter.name} isn't in the docstring's section Parameters"
            assert not parameter.required or parameter.name in self.required_parameters, (
                f"parameter {parameter.name} has no default"
            )
            if not parameter.required and parameter.default is not None:
                faults = validate(factory, {parameter.name: described_default(described, parameter.name)}, "it")[1]
                faults = [fault for fault in faults if fault.startswith(f"it.{parameter.name} is ")]
                assert not faults, f"the default of {parameter.name} can't stand in an experiment file: {faults}"

    @requires("name")
    def test_plugin_offers_what_make_returns(self) -> None:
        """What ``make`` returns is what the plugin's name stands for."""
        factory = self._factory()
        if isinstance(factory, type):
            assert isinstance(self.one(), factory)

    def make(self, *args: Any, **parameters: Any) -> Any:
        """Return a fresh object with these parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define make(**parameters)")

    def one(self) -> Any:
        """Return a fresh object with its defaults."""
        return self.make()

    required_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters of the factory that have no default, such as a path."""

    def _factory(self) -> Callable[..., Any]:
        return load_factory(installed().offer(self.kind, str(self.name)))


def _conditional_tests(cls: type) -> dict[str, tuple[Callable[..., Any], str]]:
    """Return the tests of a class and its bases that `requires` marked, but for those that it overrides."""
    inherited: dict[str, tuple[Callable[..., Any], str]] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited = {name: pair for name, pair in inherited.items() if not callable(vars(base).get(name))}
        inherited |= vars(base).get("_conditional", {})
    own = {name: (one, getattr(one, "_requires", None)) for name, one in vars(cls).items() if callable(one)}
    kept = {name: pair for name, pair in inherited.items() if name not in own}
    return kept | {name: (one, claim) for name, (one, claim) in own.items() if claim is not None}


Contract._conditional = _conditional_tests(Contract)


class CaseContract(Contract):
    """Base of the contracts of parts that take a learner's outputs."""

    outputs: ClassVar[tuple[str, ...]] = ("binary", "classes", "posterior")
    """What it can work with: ``binary`` (B,) and (B, 1), ``classes`` (B, C), ``posterior`` (K, B, C) and (K, B, 1),
    ``values`` (B,) and (B, 1) of a regression, ``map`` (B, C, H, W), ``mapping`` (a dict); the rest is refused."""
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    """``classification``, ``regression``; what is not claimed must be refused before anything is trained."""
    kinds: ClassVar[tuple[str, ...]] = ("logits", "probabilities")
    """What a classifier's outputs may mean."""

    @classmethod
    def claims(cls, case: Case) -> bool:
        """Return whether it is claimed to work with this task and these outputs."""
        kind_is_claimed = case.task == "regression" or case.kind in cls.kinds
        return case.outputs in cls.outputs and case.task in cls.tasks and kind_is_claimed

    @classmethod
    def case(cls) -> Case:
        """Return what most tests use: the first case that is claimed."""
        claimed = [case for case in CASES if cls.claims(case)]
        if not claimed:
            raise TypeError(f"{cls.__name__}: no case fits outputs={cls.outputs} and tasks={cls.tasks}.")
        return claimed[0]


def described_default(described: dict[str, Any], name: str) -> Any:
    """Return the default of a parameter as an experiment file would hold it."""
    return next(parameter["default"] for parameter in described["parameters"] if parameter["name"] == name)
