"""Monte-Carlo dropout whose masks are the same for all samples."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

_ELEMENTS = (torch.nn.Dropout,)
_CHANNELS = (torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d)


def _layers(learner: Any) -> list[tuple[str, Any]]:
    """Return the dropout layers of a learner that drop something, by name."""
    if not isinstance(learner, torch.nn.Module):
        return []
    return [
        (name, one) for name, one in learner.named_modules() if isinstance(one, _ELEMENTS + _CHANNELS) and one.p > 0
    ]


def has_dropout(learner: Any) -> bool:
    """Tell whether a learner has a dropout layer that drops something."""
    return bool(_layers(learner))


class Dropout:
    """Maps inputs to K predictions, each with dropout masks of its own.

    Parameters
    ----------
    learner
        With dropout layers. It stays in eval mode: a hook on each of them multiplies by a mask what it lets through.
    infer
        Maps inputs to the learner's outputs, ``(B,)`` or ``(B, T)``.
    draws
        How many predictions K.
    generator
        Maps the name of a mask to a fresh random generator, the same one each time.

    Notes
    -----
    A mask has the shape of one sample and holds for all of them, in every batch: a sample's predictions depend on it
    alone. The K masks are kept, O(K hidden units).
    """

    def __init__(
        self, learner: Any, infer: Callable[[Any], Any], draws: int, generator: Callable[[str], torch.Generator]
    ) -> None:
        self._layers, self._infer, self._draws, self._generator = _layers(learner), infer, draws, generator
        self._masks: dict[str, torch.Tensor] = {}

    def __call__(self, inputs: Any) -> torch.Tensor:
        """Return predictions of shape (K, B, T)."""
        samples = []
        for draw in range(self._draws):
            with self._masked(draw):
                samples.append(self._infer(inputs))
        stacked = torch.stack(samples)
        return stacked[..., None] if stacked.dim() == 2 else stacked

    @contextlib.contextmanager
    def _masked(self, draw: int) -> Iterator[None]:
        calls: Counter[str] = Counter()  # one layer may be called several times in a pass
        hooks = []
        try:
            for name, layer in self._layers:

                def drop(layer: Any, _inputs: Any, output: torch.Tensor, name: str = name) -> torch.Tensor:
                    calls[name] += 1
                    return output * self._mask(layer, f"{draw} {name} {calls[name]}", output)

                hooks.append(layer.register_forward_hook(drop))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _mask(self, layer: Any, name: str, output: torch.Tensor) -> torch.Tensor:
        shape = [1, *output.shape[1:]]
        if isinstance(layer, _CHANNELS):
            shape[2:] = [1] * len(shape[2:])
        name = f"{name} {shape}"
        if name not in self._masks:
            keep = torch.rand(shape, generator=self._generator(name)) >= layer.p
            self._masks[name] = (keep.double() / max(1 - layer.p, 1e-12)).to(output.device, output.dtype)
        return self._masks[name]
