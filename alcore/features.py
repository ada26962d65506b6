"""Features of samples: what the learner makes of them before its last layer, with its outputs, in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from alcore.errors import UsageError, did_you_mean
from alcore.placement import evaluating, place, tensors_of
from alcore.scoring import chunks
from alcore.state import model_digest, undisturbed

if TYPE_CHECKING:
    from alcore.driver import Driver


class Embedded(NamedTuple):
    """Samples with their features.

    Parameters
    ----------
    ids
        Sample ids: int64 (N,); -1 for labelled samples of a pool that has no ids.
    features
        Float32, shape (N, D), on the CPU.
    outputs
        What the learner returned, on the CPU: N along the first axis, or along the second of posterior samples.
    targets
        Labels, shape (N, ...), or None where they are not known.
    """

    ids: torch.Tensor
    features: torch.Tensor
    outputs: torch.Tensor
    targets: torch.Tensor | None = None

    def take(self, rows: Any) -> Embedded:
        """Return some of the samples, by a slice, a mask or positions."""
        outputs = self.outputs[:, rows] if self.outputs.dim() == 3 else self.outputs[rows]
        targets = None if self.targets is None else self.targets[rows]
        return Embedded(self.ids[rows], self.features[rows], outputs, targets)


class FeatureCache:
    """Keeps features for as long as the model stays the same.

    Parameters
    ----------
    limit
        Bytes that may be kept; what is larger is computed anew each time.
    """

    def __init__(self, limit: int = 2**29) -> None:
        self._limit = limit
        self._kept: dict[str, Embedded] = {}
        self._model = ""

    def find(self, model: str, layer: str, ids: torch.Tensor) -> Embedded | None:
        """Return features of these ids (ascending), if all of them are kept for this state of the model."""
        known = self._kept.get(layer) if model == self._model else None
        if known is None or not len(known.ids):
            return None
        rows = torch.searchsorted(known.ids, ids).clamp_(max=len(known.ids) - 1)
        return known.take(rows) if bool((known.ids[rows] == ids).all()) else None

    def keep(self, model: str, layer: str, embedded: Embedded) -> None:
        """Keep what was computed, in place of what was kept for another state of the model."""
        if model != self._model:
            self._model, self._kept = model, {}
        used = sum(_bytes(one) for name, one in self._kept.items() if name != layer)
        if used + _bytes(embedded) <= self._limit:
            self._kept[layer] = embedded


def _bytes(embedded: Embedded) -> int:
    return sum(part.numel() * part.element_size() for part in embedded if isinstance(part, torch.Tensor))


def embed(driver: Driver, ids: torch.Tensor | None = None, layer: str = "") -> Embedded:
    """Return features and outputs of a driver's candidates.

    Parameters
    ----------
    driver
        Gives pool and learner.
    ids
        Samples of the pool, ascending: int64 (N,); all candidates where it is None.
    layer
        ``""`` for the penultimate activations: the input of the learner's last `torch.nn.Linear`, or what its method
        ``features(inputs)`` returns, or the inputs of a learner that is no module. ``"inputs"`` for the inputs
        themselves, flattened. Else the dotted name of a submodule, whose output counts.

    Raises
    ------
    UsageError
        When the learner has no such layer.
    """
    if ids is None:
        found = list(driver.candidates())
        ids = torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
    model = model_digest(driver.learner)
    known = driver.feature_cache.find(model, layer, ids)
    if known is None:
        known = _embed(driver, ids, layer)
        driver.feature_cache.keep(model, layer, known)
    return known


def embed_labelled(driver: Driver, layer: str = "") -> Embedded:
    """Return features, outputs and targets of the labelled samples, in training order.

    Parameters are those of `embed`.
    """
    pool = driver.train_datapool
    if pool is None or not len(pool):
        return _joined(torch.empty(0, dtype=torch.int64), [])
    with undisturbed():  # a pool may augment what it returns
        if pool is driver.choice_pool and hasattr(pool, "labeled_ids") and hasattr(pool, "batch"):
            return _embed(driver, pool.labeled_ids, layer)._replace(targets=pool.batch(torch.arange(len(pool)))[1])
        batches, targets = [], []
        with _Extractor(driver, layer) as extract:
            for inputs, target in driver.ordered_batches(pool):
                batches.append(extract(inputs))
                targets.append(target.cpu())
    return _joined(torch.full((len(pool),), -1), batches)._replace(targets=torch.cat(targets))


def _embed(driver: Driver, ids: torch.Tensor, layer: str) -> Embedded:
    with _Extractor(driver, layer) as extract:
        return _joined(ids, [pair for _, pair in chunks(driver, extract, ids=ids)])


def _joined(ids: torch.Tensor, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Embedded:
    if not batches:
        return Embedded(ids, torch.empty(0, 0), torch.empty(0, 0))
    features, outputs = zip(*batches, strict=True)
    return Embedded(ids, torch.cat(features), torch.cat(outputs, dim=1 if outputs[0].dim() == 3 else 0))


class _Extractor:
    """Maps inputs to (features, outputs), both on the CPU; listens to a layer while its ``with`` block runs."""

    def __init__(self, driver: Driver, layer: str) -> None:
        self._driver = driver
        learner = driver.learner
        self._own = learner.features if not layer and inspect.ismethod(getattr(learner, "features", None)) else None
        self._of_inputs = layer == "inputs" or (self._own is None and not isinstance(learner, torch.nn.Module))
        self._listens = self._own is None and not self._of_inputs
        self._layer = layer
        self._caught: list[torch.Tensor] = []

    def __enter__(self) -> _Extractor:
        if self._listens:
            self._hook = self._listen(self._driver.learner)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            self._hook.remove()

    def __call__(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self._caught.clear()
        outputs = self._driver.infer(inputs)
        if not isinstance(outputs, torch.Tensor):
            raise UsageError(
                f"the learner returned a {type(outputs).__name__}, not a tensor; give the Driver an "
                "inference_fn(learner, inputs) that returns one."
            )
        return self._features(inputs), outputs.detach().cpu()

    def _features(self, inputs: Any) -> torch.Tensor:
        if self._of_inputs:
            return _flat(tensors_of(inputs))
        if self._own is None:
            return _flat(self._caught[-1:])
        with evaluating(self._driver.learner):
            return _flat(tensors_of(self._own(place(inputs, self._driver.device, self._driver.dtype))))

    def _listen(self, learner: torch.nn.Module) -> Any:
        if self._layer:
            named = {name: one for name, one in learner.named_modules() if name}
            if self._layer not in named:
                raise UsageError(
                    f"the learner {type(learner).__name__} has no layer {self._layer!r}: "
                    f"{did_you_mean(self._layer, [*named, 'inputs'])}."
                )
            return named[self._layer].register_forward_hook(lambda _m, _i, output: self._caught.append(output))
        linear = [one for one in learner.modules() if isinstance(one, torch.nn.Linear)]
        if not linear:
            raise UsageError(
                f"the learner {type(learner).__name__} has no torch.nn.Linear whose input could be its features; name "
                "a layer by layer=..., or use layer='inputs'."
            )
        return linear[-1].register_forward_pre_hook(lambda _module, given: self._caught.append(given[0]))


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.detach().flatten(1).float().cpu() for one in tensors], dim=1)
