"""The hooks that plugins implement, and the markers of their implementations.

A *registration* hook (marker :data:`hookimpl`, found through the entry-point group ``alcore``) offers names. A
*lifecycle* hook (marker :data:`runhook`, given to ``Driver(plugins=[...])``) is called by a run on many listeners. What
is called on exactly one object is a method of a protocol in :mod:`alcore.protocols`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from alcore.protocols import (
        Data,
        EndReason,
        Factory,
        LabelStrategy,
        MetrologyStrategy,
        Phase,
        QueryStrategy,
        Queue,
        RunContext,
        TrainingLoop,
    )

__all__ = ["Lifecycle", "Registration", "hookimpl", "runhook"]

hookspec = pluggy.HookspecMarker("alcore")
"""Marks the specification of a registration hook."""
hookimpl = pluggy.HookimplMarker("alcore")
"""Marks a function of a plugin that implements a registration hook."""
runspec = pluggy.HookspecMarker("alcore_run")
"""Marks the specification of a run hook."""
runhook = pluggy.HookimplMarker("alcore_run")
"""Marks a method of an observer or stop criterion that implements a run hook."""


class Registration:
    """Hooks by which a distribution offers names. Each returns a mapping from name to factory."""

    @hookspec
    def alcore_training_loops(self) -> Mapping[str, Factory[TrainingLoop]]:
        """Offer training loops, for ``--loop NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_query_strategies(self) -> Mapping[str, Factory[QueryStrategy]]:
        """Offer query strategies, for ``--query NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_label_strategies(self) -> Mapping[str, Factory[LabelStrategy]]:
        """Offer label strategies, for ``--label NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_metrology_strategies(self) -> Mapping[str, Factory[MetrologyStrategy]]:
        """Offer metrology strategies, for ``--metrology NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_data(self) -> Mapping[str, Factory[Data]]:
        """Offer data sets and file formats, for ``--data NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_data_files(self) -> Mapping[str, str]:
        """Say which files data reads, for ``alcore run FILE``: the name of the data by the suffix of the file.

        The data's factory has a parameter `path`, which receives the file.
        """
        raise NotImplementedError

    @hookspec
    def alcore_learners(self) -> Mapping[str, Factory[Any]]:
        """Offer learners, for ``--learner NAME``; a factory may take ``info``, the `DataInfo` of the data."""
        raise NotImplementedError

    @hookspec
    def alcore_queues(self) -> Mapping[str, Factory[Queue]]:
        """Offer queues, for ``--queue NAME``."""
        raise NotImplementedError

    @hookspec
    def alcore_stop_criteria(self) -> Mapping[str, Factory[Any]]:
        """Offer stop criteria, for ``--stop NAME``: objects with the run hook `alcore_should_stop`."""
        raise NotImplementedError

    @hookspec
    def alcore_observers(self) -> Mapping[str, Factory[Any]]:
        """Offer observers, for ``--observe NAME``: objects with any run hook."""
        raise NotImplementedError

    @hookspec
    def alcore_commands(self, app: typer.Typer) -> None:
        """Add sub-commands to the ``alcore`` command."""


class Lifecycle:
    """Hooks that a run calls on its observers and stop criteria, in the order in which they were given.

    An observer that raises is logged with its name, and the run goes on. A stop criterion that raises in
    `alcore_should_stop` ends the run with its error.

    `replayed` is True where the step was run before, up to some point, and is run again since the run was resumed: what
    it decided is on record, and observers may have been called with it.
    """

    @runspec
    def alcore_run_start(self, driver: RunContext) -> None:
        """Called when the run directory exists, before the first step."""

    @runspec
    def alcore_phase_start(self, driver: RunContext, phase: Phase, replayed: bool) -> None:
        """Called before each phase that is not skipped."""

    @runspec
    def alcore_phase_end(self, driver: RunContext, phase: Phase, error: BaseException | None, replayed: bool) -> None:
        """Called after a phase, with the exception that ended it, or None."""

    @runspec(firstresult=True)
    def alcore_should_stop(self, driver: RunContext) -> str | None:
        """Return a reason to end the run, or None. Called after metrology, before new labels are bought."""

    @runspec
    def alcore_step_end(self, driver: RunContext, record: Mapping[str, Any], replayed: bool) -> None:
        """Called when a step is committed; `record` holds its number, counts, losses, metrics and seconds by phase."""

    @runspec
    def alcore_run_end(self, driver: RunContext, reason: EndReason | None, error: BaseException | None) -> None:
        """Called at the end, with the reason (`str` gives its text), or with the exception that ended the run."""
