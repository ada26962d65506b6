"""Call a function eagerly a few times, then replay graphs of it, one for each shape of its arguments."""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from alcore_torchloop.graphs import Graph, Graphs

logger = logging.getLogger("alcore.torchloop")

MOST_GRAPHS = 8
MOST_CHANGES = 16  # in a row, without a replay between them
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


class UnfitError(Exception):
    """A call that a graph can't replace."""


class Dependencies(NamedTuple):
    """What a graph depends on beside arguments; it is stale if one of these changes.

    Parameters
    ----------
    objects
        Compared by identity. They are kept alive while they are compared, so that no two can have the same address.
    values
        Compared by value.
    """

    objects: list[Any]
    values: list[Any]

    def same(self, other: Dependencies | None) -> bool:
        """Return whether nothing changed."""
        return (
            other is not None
            and self.values == other.values
            and len(self.objects) == len(other.objects)
            and all(map(operator.is_, self.objects, other.objects))
        )


class _Recording(NamedTuple):
    graph: Graph
    inputs: list[torch.Tensor]
    result: Any


class Recorder:
    """Calls a function, at first eagerly and then by graphs.

    Parameters
    ----------
    graphs
        Makes the graphs.
    eager
        The function.
    recorded
        The part of it that is recorded. Its result stays at one place in memory, which each replay overwrites.
    finish
        Makes the result of a call from what `recorded` returned.
    depends
        Returns what graphs depend on beside arguments.
    warmup
        Eager calls with arguments of one shape before the graph is recorded, on its stream.
    warn
        Called with the reason if recording fails.

    Notes
    -----
    Up to `MOST_GRAPHS` shapes get a graph. If recording fails, a warning gives the reason, and all
    further calls are eager.
    """

    def __init__(
        self,
        graphs: Graphs,
        eager: Callable[..., Any],
        recorded: Callable[..., Any],
        finish: Callable[[Any], Any],
        depends: Callable[[], Dependencies],
        warmup: int,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self._warn = warn
        self._graphs, self._eager, self._recorded, self._finish = graphs, eager, recorded, finish
        self._depends, self._warmup = depends, max(1, warmup)
        self._known: Dependencies | None = None
        self._found: dict[Any, int | _Recording] = {}
        self._given_up, self._changes = False, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ``eager(*args, **kwargs)`` would return."""
        if self._given_up:
            return self._eager(*args, **kwargs)
        now = self._depends()
        if not now.same(self._known):
            self._known = now
            self._forget()
        tensors: list[torch.Tensor] = []
        try:
            if self._changes > MOST_CHANGES:
                raise UnfitError("the model changes from step to step, such as by new tensors for buffers")
            form = form_of((args, kwargs), tensors)
        except UnfitError as error:
            self._give_up(error)
            return self._eager(*args, **kwargs)
        recording = self._found.get(form, 0)
        if recording == 0 and len(self._found) == MOST_GRAPHS:
            return self._eager(*args, **kwargs)
        if isinstance(recording, int) and recording < self._warmup:
            self._found[form] = recording + 1
            with self._graphs.aside():
                return self._eager(*args, **kwargs)
        if isinstance(recording, int):
            try:
                recording = self._found[form] = self._record(tensors, args, kwargs)
            except Exception as error:  # noqa: BLE001 - the eager call raises the actual error
                self._give_up(error)
                return self._eager(*args, **kwargs)
        for place, tensor in zip(recording.inputs, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._changes = 0
        recording.graph.replay()
        return self._finish(recording.result)

    def _forget(self) -> None:
        """Drop all graphs; one eager call comes before a new one, in which an optimizer makes its state."""
        self._changes += 1
        for form, recording in self._found.items():
            self._found[form] = min(recording if isinstance(recording, int) else self._warmup, self._warmup - 1)

    def _record(self, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> _Recording:
        inputs = [tensor.detach().clone() for tensor in tensors]
        args, kwargs = with_tensors((args, kwargs), iter(inputs))
        with self._graphs.record() as graph:
            result = self._recorded(*args, **kwargs)
        return _Recording(graph, inputs, result)

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        self._found.clear()
        why = " ".join(str(error).split()) or type(error).__name__
        self._warn(f"this step can't be captured as a graph and runs eagerly, with the same results: {why}")


def form_of(thing: Any, tensors: list[torch.Tensor]) -> Any:
    """Return what two calls must have in common to use the same graph, and collect the tensors.

    Raises
    ------
    UnfitError
        For anything but tensors, plain values, modules and functions, in dicts, lists and tuples.
    """
    if isinstance(thing, torch.Tensor):
        if thing.requires_grad:
            raise UnfitError("an argument requires a gradient")
        tensors.append(thing)
        return (torch.Tensor, thing.shape, thing.dtype, thing.device)
    if isinstance(thing, Mapping):
        return (type(thing), *((key, form_of(value, tensors)) for key, value in thing.items()))
    if isinstance(thing, tuple | list):
        return (type(thing), *(form_of(value, tensors) for value in thing))
    if isinstance(thing, _PLAIN):
        return (type(thing), thing)
    if isinstance(thing, torch.nn.Module) or callable(thing):
        return _Itself(thing)
    raise UnfitError(f"an argument or a result has a {type(thing).__name__}, which is neither tensor nor plain value")


def with_tensors(thing: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Return the same nesting with other tensors."""
    if isinstance(thing, torch.Tensor):
        return next(tensors)
    if isinstance(thing, Mapping):
        return {key: with_tensors(value, tensors) for key, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(with_tensors(value, tensors) for value in thing))
    if isinstance(thing, tuple | list):
        return type(thing)([with_tensors(value, tensors) for value in thing])
    return thing


def copied(result: Any) -> Any:
    """Return a result with copies of its tensors, which replays don't overwrite."""
    tensors: list[torch.Tensor] = []
    form_of(result, tensors)
    return with_tensors(result, iter([tensor.clone() for tensor in tensors]))


@contextlib.contextmanager
def unreplaced_buffers(model: Any) -> Iterator[None]:
    """Raise `UnfitError` if a block replaces a buffer of a module by a new tensor, which a replay would not do."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    before = [dict(module._buffers) for module in modules]
    try:
        yield
    finally:
        replaced = None
        for module, buffers in zip(modules, before, strict=True):
            if any(module._buffers.get(name) is not buffer for name, buffer in buffers.items()):
                replaced = type(module).__name__
                module._buffers.update(buffers)
    if replaced is not None:
        raise UnfitError(f"{replaced} replaces one of its buffers; it would have to change it in place")


def dependencies(model: Any) -> Dependencies:
    """Return what graphs of a model depend on: parameters, buffers, what is frozen, and the mode of each submodule."""
    if not isinstance(model, torch.nn.Module):
        return Dependencies([model], [])
    modules = list(model.modules())
    tensors = [*model.parameters(), *model.buffers()]
    values: list[Any] = [module.training for module in modules]
    values += [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors]
    return Dependencies([*modules, *tensors], values)


class _Itself:
    """Equal only to the same object, which it keeps alive."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._thing is other._thing

    def __hash__(self) -> int:
        return id(self._thing)
