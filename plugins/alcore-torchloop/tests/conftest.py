"""Graphs on a CPU: they record each operation of torch, and do it again on the same memory, as those of CUDA do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from alcore_torchloop import graphs as graphs_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

HOST_READS = ("_local_scalar_dense", "equal")


class Tape(TorchDispatchMode):
    """A graph. What is recorded leaves no trace in memory, and code of Python runs once, when it is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []
        self.replays = 0
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._own: set[int] = set()
        self._kept: list[Any] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operation.overloadpacket.__name__ in HOST_READS:
            raise RuntimeError("operation not permitted when stream is capturing")
        inputs = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        for tensor in inputs:
            place = tensor.untyped_storage().data_ptr()
            if place not in self._own and place not in self._before:
                self._before[place] = (tensor, tensor.detach().clone())
        result = operation(*args, **kwargs)
        outputs = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        places = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        new = [tensor for tensor in outputs if tensor.untyped_storage().data_ptr() not in places]
        self._own |= {tensor.untyped_storage().data_ptr() for tensor in new}
        if new or operation._schema.is_mutable or not outputs:  # not for a view of what is there already
            self.operations.append((operation, args, kwargs, outputs, new))
        self._kept += [args, kwargs, outputs]  # a graph owns its memory
        return result

    def undo(self) -> None:
        for one, before in self._before.values():
            with torch.no_grad():
                one.detach().copy_(before)
        self._before.clear()

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for operation, args, kwargs, outputs, new in self.operations:
                again = [leaf for leaf in tree_flatten(operation(*args, **kwargs))[0] if isinstance(leaf, torch.Tensor)]
                for place, one in zip(outputs, again, strict=True):
                    if any(place is other for other in new):
                        place.detach().copy_(one)


class TapeGraphs:
    """Stands in for `alcore_torchloop.graphs.CudaGraphs`, and counts."""

    def __init__(self) -> None:
        self.warmups, self.tapes = 0, []

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self.warmups += 1
        yield

    @contextlib.contextmanager
    def record(self) -> Iterator[Tape]:
        tape, state = Tape(), torch.get_rng_state()
        try:
            with tape:
                yield tape
        finally:
            tape.undo()
            torch.set_rng_state(state)
        self.tapes.append(tape)

    @property
    def replays(self) -> list[int]:
        return [tape.replays for tape in self.tapes]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> TapeGraphs:
    """Graphs of a CPU, where CUDA's would be."""
    made = TapeGraphs()
    monkeypatch.setattr(graphs_module, "graphs_for", lambda device: made)
    return made
