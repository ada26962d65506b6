"""Monte Carlo dropout with consistent masks: only dropout is active, everything else is in eval mode."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from alcore.errors import UsageError
from alcore.outputs.modes import evaluating
from alcore.randomness import derive_generator

_ELEMENTS = (torch.nn.Dropout, torch.nn.AlphaDropout)
_CHANNELS = (torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d, torch.nn.FeatureAlphaDropout)
_ALPHA = (torch.nn.AlphaDropout, torch.nn.FeatureAlphaDropout)
_FORWARDS = {cls.forward for cls in (*_ELEMENTS, *_CHANNELS)}
_ALPHA_DROPPED = -1.7580993408473766  # -scale * alpha of SELU, to which a dropped unit is set

UniformNumbers = Callable[[str, int, tuple[int, ...]], torch.Tensor]


def dropout_layers(learner: Any) -> dict[str, torch.nn.Module]:
    """Return the dropout layers of a learner with p above 0, by their dotted names.

    These are the modules of torch's own dropout classes, and of derived classes that don't override `forward`. Dropout
    that is not such a module is not found: `torch.nn.functional.dropout`, and the dropout inside `torch.nn.LSTM`,
    `torch.nn.GRU`, `torch.nn.RNN` and `torch.nn.MultiheadAttention`.

    Parameters
    ----------
    learner
        Any learner; one that is not a `torch.nn.Module` has no layers.
    """
    if not isinstance(learner, torch.nn.Module):
        return {}
    return {
        name: module
        for name, module in learner.named_modules()
        if isinstance(module, _ELEMENTS + _CHANNELS) and type(module).forward in _FORWARDS and module.p > 0
    }


class _Masks(NamedTuple):
    """The units that one call of a layer keeps: bool (K, *shape of one sample), with axes of size 1 to broadcast."""

    kept: torch.Tensor
    shape: tuple[int, ...]


class MCDropout:
    """Draws posterior samples of a learner by dropout (MC dropout), with the same masks for all samples of a pool.

    Parameters
    ----------
    learner
        A module with dropout layers; see `dropout_layers`.
    samples
        Number of posterior samples, K.
    seed
        Seed of the masks.
    uniform
        Draws the masks in place of `seed`. It is called with the name of a layer, the number of its call within a
        forward pass, from 0, and the shape of a mask, and returns K masks of uniform numbers in [0, 1): shape
        (K, *shape). A unit is kept if its number is at least p.
    scale_dtype
        Floating-point type in which the factor 1 / (1 - p) of the kept units is computed; torch's default if None.

    Raises
    ------
    UsageError
        If the learner has no dropout layer.

    Notes
    -----
    Pass k is the forward pass of one model drawn from the approximate posterior. Its masks are drawn once, for the
    shape of a single sample, and are the same for every sample, in whatever chunk it is. Joint entropies require that,
    and it makes the outputs of a sample independent of its neighbors. A mask depends on the seed, the name of the
    layer, and the number of the call within a pass. The modules are not put into train mode; during the passes, each
    dropout layer has a forward hook. Neither modes nor global random generators change. The samples must be on the
    first axis of the input of a dropout layer.

    Time: K forward passes. Memory: K bytes for each unit before a dropout layer, of one sample.

    References
    ----------
    Gal and Ghahramani (2016), Dropout as a Bayesian approximation, ICML. Consistent masks: Kirsch, van Amersfoort and
    Gal (2019), BatchBALD, NeurIPS.
    """

    def __init__(
        self,
        learner: Any,
        samples: int = 20,
        seed: int = 0,
        *,
        uniform: UniformNumbers | None = None,
        scale_dtype: torch.dtype | None = None,
    ) -> None:
        self._layers = dropout_layers(learner)
        if not self._layers:
            raise UsageError(
                f"the learner {type(learner).__name__} gives no posterior samples: it returns one output a sample, and "
                "has no dropout layer for MC dropout. Give it torch.nn.Dropout modules with p above 0 (--set "
                "learner.mlp.dropout=0.2), choose --learner ensemble, or let it return (K, B, C)."
            )
        if samples < 1:
            raise UsageError(f"samples is {samples}; there must be at least 1 sample of the posterior.")
        self._samples, self._seed = samples, seed
        self._scale_dtype = scale_dtype or torch.get_default_dtype()
        self._uniform = uniform or self._from_seed
        self._masks: dict[tuple[str, int], _Masks] = {}
        self._pass = 0
        self._calls: dict[str, int] = {}

    def __call__(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the outputs of K passes.

        Parameters
        ----------
        forward
            Runs the learner on B samples, in eval mode and without gradients; returns (B,) or (B, C).

        Returns
        -------
        torch.Tensor
            Shape (K, B, C); (K, B, 1) for outputs (B,). In memory, the classes are the first axis.
        """
        result = torch.empty(0)
        with self._active():
            for k in range(self._samples):
                self._pass = k
                self._calls.clear()
                outputs = _rows(forward())
                if not self._calls:
                    raise UsageError(
                        f"none of the learner's dropout layers ({', '.join(self._layers)}) took part in the forward "
                        "pass, so that all passes are the same; is the learner compiled or traced?"
                    )
                if not k:
                    result = outputs.new_empty(outputs.shape[1], self._samples, outputs.shape[0])
                result[:, k] = outputs.t()
        return result.permute(1, 2, 0)

    @contextlib.contextmanager
    def _active(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, layer in self._layers.items():
                # The first of the layer's hooks, so that the others are given the units after dropout
                stack.enter_context(_removing(layer.register_forward_hook(self._hook(name), prepend=True)))
            yield

    def _hook(self, name: str) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
        def drop(layer: Any, _given: Any, units: torch.Tensor) -> torch.Tensor:
            call = self._calls[name] = self._calls.get(name, -1) + 1
            return self._drop(layer, units, self._mask(name, call, layer, units))

        return drop

    def _mask(self, name: str, call: int, layer: Any, units: torch.Tensor) -> torch.Tensor:
        shape = tuple(units.shape[1:])
        masks = self._masks.get((name, call))
        if masks is None:
            drawn = (shape[0], *(1 for _ in shape[1:])) if isinstance(layer, _CHANNELS) and shape else shape
            kept = self._uniform(name, call, drawn) >= layer.p
            masks = self._masks[name, call] = _Masks(kept.to(units.device), shape)
        if masks.shape != shape:
            raise UsageError(
                f"the dropout layer {name!r} was given units of shape {masks.shape} a sample, and then {shape}; MC "
                "dropout with consistent masks needs the samples along the first axis, and one shape for all of them."
            )
        return masks.kept[self._pass]

    def _from_seed(self, name: str, call: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand((self._samples, *shape), generator=derive_generator(self._seed, name, call))

    def _drop(self, layer: Any, units: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        if not isinstance(layer, _ALPHA):
            return units * (kept.to(self._scale_dtype) / (1 - layer.p) if layer.p < 1 else kept).to(units.dtype)
        # As in torch: a dropped unit is set to SELU's limit, and an affine map restores mean 0 and variance 1
        dropped = _ALPHA_DROPPED
        scale = 1 / math.sqrt((1 - layer.p) * (1 + layer.p * dropped**2)) if layer.p < 1 else 0.0
        return (torch.where(kept, units, dropped) - layer.p * dropped) * scale


def mc_dropout(learner: torch.nn.Module, inputs: Any, samples: int = 20, seed: int = 0) -> torch.Tensor:
    """Return posterior samples of a learner's outputs by MC dropout.

    Parameters
    ----------
    learner
        A module with dropout layers. Its modes don't change.
    inputs
        The learner's inputs for B samples, on its device.
    samples
        Number of posterior samples, K.
    seed
        Seed of the masks, which are the same for all samples in a pass; see `MCDropout`.

    Returns
    -------
    torch.Tensor
        Shape (K, B, C); (K, B, 1) for a learner that returns (B,).
    """
    with evaluating(learner):
        return MCDropout(learner, samples, seed)(lambda: learner(inputs))


def _rows(outputs: Any) -> torch.Tensor:
    if not isinstance(outputs, torch.Tensor) or outputs.dim() not in (1, 2):
        what = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise UsageError(f"the learner returned {what}; MC dropout takes outputs of shape (B,), (B, 1) or (B, C).")
    return outputs[:, None] if outputs.dim() == 1 else outputs


@contextlib.contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
