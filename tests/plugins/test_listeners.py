"""`Listeners`: which observers and criteria are called, in which order, and what their faults do."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import types
from collections.abc import Iterator
from typing import Any

import pytest

import alcore
from alcore.errors import AlcoreError, UsageError
from alcore.plugins.listeners import RUN_HOOKS, Listeners

LOGGER = logging.getLogger("tests.listeners")


@dataclasses.dataclass
class Told:
    """An observer; two with one name are equal."""

    name: str = ""
    heard: list[Any] = dataclasses.field(default_factory=list, compare=False)

    @alcore.runhook
    def alcore_run_start(self) -> None:
        self.heard.append(self.name)


RUN: Any = object()  # stands for the run


def listeners(*plugins: Any, **options: Any) -> Listeners:
    made = Listeners(plugins, LOGGER, **options)
    made.attach(RUN)
    return made


# -- which listeners are called ------------------------------------------------------------------------------


def test_hook_gets_the_arguments_that_it_names() -> None:
    heard: list[Any] = []

    class All:
        @alcore.runhook
        def alcore_run_start(self, driver: Any) -> None:
            heard.append(driver)

        @alcore.runhook
        def alcore_phase_start(self, phase: Any, driver: Any) -> None:
            heard.append((phase, driver))

        @alcore.runhook
        def alcore_phase_end(self, error: Any) -> None:
            heard.append(error)

        @alcore.runhook
        def alcore_step_end(self) -> None:
            heard.append("step")

        @alcore.runhook
        def alcore_run_end(self, reason: Any, driver: Any, error: Any) -> None:
            heard.append((reason, driver, error))

    told = listeners(All())
    told.call("alcore_run_start")
    told.call("alcore_phase_start", phase="p")
    told.call("alcore_phase_end", phase="p", error="e")
    told.call("alcore_step_end", record={})
    told.call("alcore_run_end", reason="r", error="e")
    assert heard == [RUN, ("p", RUN), "e", "step", ("r", RUN, "e")]


def test_listeners_are_called_in_the_order_given() -> None:
    heard: list[Any] = []
    listeners(*(Told(name, heard) for name in "abcd")).call("alcore_run_start")
    assert heard == list("abcd")


def test_tryfirst_and_trylast_come_first_and_last_in_order() -> None:
    heard: list[str] = []

    def made(name: str, **options: Any) -> Any:
        class Plugin:
            @alcore.runhook(**options)
            def alcore_run_start(self) -> None:
                heard.append(name)

        return Plugin()

    plugins = [
        made("last 1", trylast=True), made("1"), made("first 1", tryfirst=True),
        made("last 2", trylast=True), made("2"), made("first 2", tryfirst=True),
    ]  # fmt: skip
    listeners(*plugins).call("alcore_run_start")
    assert heard == ["first 1", "first 2", "1", "2", "last 1", "last 2"]


def test_equal_and_repeated_objects_are_each_called() -> None:
    heard: list[Any] = []
    one, other = Told("x", heard), Told("x", heard)
    assert one == other
    listeners(one, other, one).call("alcore_run_start")
    assert heard == ["x"] * 3


def test_hook_may_be_static_inherited_renamed_or_of_a_module() -> None:
    heard: list[str] = []

    class Base:
        @alcore.runhook
        def alcore_run_start(self) -> None:
            heard.append("inherited")

    class Kinds(Base):
        @staticmethod
        @alcore.runhook
        def alcore_phase_start(phase: Any) -> None:
            heard.append(f"static {phase}")

        @classmethod
        @alcore.runhook
        def alcore_step_end(cls) -> None:
            heard.append(cls.__name__)

        @alcore.runhook(specname="alcore_run_end")
        def farewell(self, reason: Any) -> None:
            heard.append(f"renamed {reason}")

        @property
        def costly(self) -> None:
            raise AssertionError("properties are not looked at")

    module = types.ModuleType("observing")

    @alcore.runhook
    def alcore_run_start() -> None:
        heard.append("module")

    module.alcore_run_start = alcore_run_start  # type: ignore[attr-defined]
    told = listeners(Kinds(), module)
    told.call("alcore_run_start")
    told.call("alcore_phase_start", phase="p")
    told.call("alcore_step_end", record=None)
    told.call("alcore_run_end", reason="r", error=None)
    assert heard == ["inherited", "module", "static p", "Kinds", "renamed r"]


def test_other_ranks_call_stop_criteria_only() -> None:
    heard: list[str] = []

    def made(name: str, *, criterion: bool) -> Any:
        class Plugin:
            @alcore.runhook
            def alcore_run_start(self) -> None:
                heard.append(name)

        class Criterion(Plugin):
            @alcore.runhook
            def alcore_should_stop(self) -> None: ...

        Criterion.__name__ = "Plugin"  # as an observer is called
        return Criterion() if criterion else Plugin()

    plugins = [made("observer", criterion=False), made("criterion", criterion=True)]
    listeners(*plugins, criteria_only=True).call("alcore_run_start")
    assert heard == ["criterion"]


def test_around_is_entered_for_each_call() -> None:
    heard: list[Any] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        heard.append("in")
        yield
        heard.append("out")

    listeners(Told("a", heard), Told("b", heard), around=around).call("alcore_run_start")
    assert heard == ["in", "a", "out", "in", "b", "out"]


def test_no_listeners_give_no_reason_to_stop() -> None:
    told = listeners()
    for hook in RUN_HOOKS:
        if hook != "alcore_should_stop":
            told.call(hook)
    assert told.reason_to_stop() is None


# -- faults ----------------------------------------------------------------------------------------------


def test_raising_observer_is_logged_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    class Faulty:
        @alcore.runhook
        def alcore_run_start(self) -> None:
            raise ZeroDivisionError("by {nought}")

    with caplog.at_level(logging.WARNING):
        listeners(Told("a", heard), Faulty(), Told("b", heard)).call("alcore_run_start")
    assert heard == ["a", "b"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "observer Faulty raised in alcore_run_start" in message
    assert "ZeroDivisionError: by {nought}" in message


def test_interruption_in_an_observer_is_raised() -> None:
    class Interrupted:
        @alcore.runhook
        def alcore_run_start(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        listeners(Interrupted()).call("alcore_run_start")


class Stop:
    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    @alcore.runhook
    def alcore_should_stop(self, driver: Any) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_first_reason_to_stop_counts() -> None:
    criteria = [Stop(None), Stop("enough"), Stop("too late")]
    assert listeners(*criteria).reason_to_stop() == "enough"
    assert [criterion.asked for criterion in criteria] == [1, 1, 0]
    assert listeners(Stop(None), Stop(None)).reason_to_stop() is None


@pytest.mark.parametrize("answer", [True, False, 1, ["why"]])
def test_reason_that_is_not_text_is_refused(answer: Any) -> None:
    with pytest.raises(AlcoreError, match=r"stop criterion Stop returned .*; it must return the reason or None"):
        listeners(Stop(answer)).reason_to_stop()


def test_error_of_a_stop_criterion_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        listeners(Stop(ZeroDivisionError())).reason_to_stop()


# -- what is refused -------------------------------------------------------------------------------------


class Unmarked:
    def alcore_run_start(self) -> None: ...


@pytest.mark.parametrize(
    "plugin", [object(), 3, Unmarked(), types.ModuleType("empty")], ids=lambda plugin: type(plugin).__name__
)
def test_object_without_hooks_is_refused(plugin: Any) -> None:
    with pytest.raises(
        UsageError, match=r"implements no run hook: mark its methods with @alcore\.runhook.*alcore_run_end"
    ):
        listeners(plugin)


def test_class_in_place_of_an_object_is_refused() -> None:
    with pytest.raises(UsageError, match=r"plugin Told is a class; give an object of it: Told\(\)"):
        listeners(Told)


def test_registration_marker_is_refused() -> None:
    class Wrong:
        @alcore.hookimpl
        def alcore_run_start(self) -> None: ...

    with pytest.raises(UsageError, match="Wrong implements no run hook"):
        listeners(Wrong())


def test_misspelled_hook_is_refused_with_the_nearest() -> None:
    class Typo:
        @alcore.runhook
        def alcore_run_strat(self) -> None: ...

    with pytest.raises(
        UsageError, match="Typo: there is no run hook 'alcore_run_strat': did you mean 'alcore_run_start'"
    ):
        listeners(Typo())


def test_misspelled_specname_is_refused_with_the_nearest() -> None:
    class Typo:
        @alcore.runhook(specname="alcore_step_ends")
        def alcore_step_end(self) -> None: ...

    with pytest.raises(UsageError, match="no run hook 'alcore_step_ends': did you mean 'alcore_step_end'"):
        listeners(Typo())


def test_optional_hook_of_a_later_version_is_accepted() -> None:
    class Later(Told):
        @alcore.runhook(optionalhook=True)
        def alcore_budget_changed(self) -> None: ...

    later = Later("a")
    listeners(later).call("alcore_run_start")
    assert later.heard == ["a"]


def test_hook_with_a_wrong_argument_is_refused() -> None:
    class Wrong:
        @alcore.runhook
        def alcore_step_end(self, driver: Any, phase: Any) -> None: ...

    with pytest.raises(UsageError, match=r"plugin Wrong: .*'phase'"):
        listeners(Wrong())


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}])
def test_hook_wrapper_is_refused(options: dict[str, bool]) -> None:
    class Around:
        @alcore.runhook(**options)
        def alcore_step_end(self) -> Any:
            yield

    with pytest.raises(UsageError, match=r"plugin Around: alcore_step_end is a hook wrapper.*alcore_phase_start"):
        listeners(Around())


def test_parts_have_names_of_their_own() -> None:
    one, other, stop = Told("a"), Told("a"), Stop(None)
    parts = listeners(one, stop, other, one).parts
    assert list(parts) == ["Told", "Stop", "Told-2", "Told-3"]
    assert [id(part) for part in parts.values()] == [id(one), id(stop), id(other), id(one)]
