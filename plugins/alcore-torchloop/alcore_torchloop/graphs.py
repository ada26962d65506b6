"""The pieces of CUDA that static capture needs, in one object that tests can replace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch


class Graph(Protocol):
    """A recording of work on a device."""

    def replay(self) -> None:
        """Do the work again, on the same memory."""


class Graphs(Protocol):
    """Where graphs come from."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Run a block on the stream that graphs are recorded on; what is on the current stream waits for it."""

    def record(self) -> contextlib.AbstractContextManager[Graph]:
        """Record what a block does to memory on the device, without doing it."""


class CudaGraphs:
    """Graphs of a CUDA device (pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs").

    Parameters
    ----------
    device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Run a block on a side stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    @contextlib.contextmanager
    def record(self) -> Iterator[Graph]:
        """Record a block on the side stream; other threads, such as one that pins memory, may go on.

        A recording that fails leaves the device's generator waiting for its end, and it would refuse to draw for steps
        that run as they are. It gets a copy of its state from before.
        """
        graph = torch.cuda.CUDAGraph()
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        generator = torch.cuda.default_generators[index]
        before = generator.clone_state()
        try:
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                yield graph
        except BaseException:
            generator.graphsafe_set_state(before)
            raise


def graphs_for(device: torch.device | str | None) -> Graphs | None:
    """Return where graphs of a device come from, or None where there are none: anywhere but on CUDA."""
    if device is None or torch.device(device).type != "cuda":
        return None
    return CudaGraphs(torch.device(device))


def device_of(model: object) -> torch.device | None:
    """Return where a model's parameters are; None where it has none."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), None)
