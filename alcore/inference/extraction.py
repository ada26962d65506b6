"""Features of samples: what the learner makes of them before its last layer, with its outputs, in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from alcore.driver.state import model_digest, model_state, undisturbed
from alcore.errors import UsageError, did_you_mean
from alcore.inference.features import Embedded as Embedded
from alcore.inference.features import FeatureCache as FeatureCache
from alcore.inference.features import joined, merged
from alcore.inference.outputs import check_outputs
from alcore.inference.streaming import chunks
from alcore.pools import is_choosable
from alcore.pools.batches import evaluating, place, tensors_of

if TYPE_CHECKING:
    from alcore.driver import Driver


def embed(driver: Driver, ids: torch.Tensor | None = None, layer: str = "") -> Embedded:
    """Return features and outputs of a driver's candidates.

    Parameters
    ----------
    driver
        Gives pool and learner.
    ids
        Samples of the pool, ascending: int64 (N,); all candidates where it is None.
    layer
        ``""`` for the penultimate activations: the input of the last `torch.nn.Linear` that the learner calls, or what
        its method ``features(inputs)`` returns, or the inputs of a learner that is no module. ``"inputs"`` for the
        inputs themselves. Else the dotted name of a submodule, whose (first) output counts. All are flattened.

    Notes
    -----
    Memory is O(N D). What the driver's cache has of these samples, for this state of the learner, is not computed
    again; it is the same to the last bit.

    Raises
    ------
    UsageError
        When the learner has no such layer.
    """
    if ids is None:
        found = list(driver.candidates())
        ids = torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
    return _cached(driver, driver.choice_pool, ids, layer)


def embed_labelled(driver: Driver, layer: str = "") -> Embedded:
    """Return features, outputs and targets of the labelled samples, in training order.

    Parameters are those of `embed`. A pool with ``labeled_ids`` and ``inputs(ids)`` gives its samples as they are; the
    items of any other come as training sees them.
    """
    pool = driver.train_datapool
    if pool is None or not len(pool):
        return joined(torch.empty(0, dtype=torch.int64), 0, [])
    with undisturbed():  # a pool may augment what it returns
        if is_choosable(pool) and hasattr(pool, "labeled_ids") and hasattr(pool, "batch"):
            ids, order = torch.sort(pool.labeled_ids)
            found = _cached(driver, pool, ids, layer).take(order.argsort())
            own = found.ids if pool is driver.choice_pool else torch.full_like(ids, -1)
            return found._replace(ids=own, targets=pool.batch(torch.arange(len(pool)))[1].cpu())
        targets: list[torch.Tensor] = []
        with _Extractor(driver, layer) as extract:
            found = joined(torch.full((len(pool),), -1), len(pool), _labelled(driver, pool, extract, targets))
    return found._replace(targets=torch.cat(targets))


def _labelled(driver: Driver, pool: Any, extract: _Extractor, targets: list[torch.Tensor]) -> Iterable[Any]:
    for inputs, target in driver.ordered_batches(pool):
        targets.append(target.cpu())
        yield extract(inputs)


def embed_outputs(driver: Driver, ids: torch.Tensor) -> Embedded:
    """Return the outputs of samples of the pool to choose from, without features: those have shape (N, 0)."""
    passes = (check_outputs(outputs).detach().cpu() for _, outputs in chunks(driver, ids=ids))
    return joined(ids, len(ids), ((torch.empty(_count(out), 0), out) for out in passes))


def embed_targets(driver: Driver) -> Embedded:
    """Return the targets of the labelled samples, in training order, and nothing else of them."""
    pool = driver.train_datapool
    if pool is None or not len(pool):
        return joined(torch.empty(0, dtype=torch.int64), 0, [])
    with undisturbed():  # a pool may augment what it returns
        targets = torch.cat([target.cpu() for _, target in driver.ordered_batches(pool)])
    count = len(targets)
    return Embedded(torch.full((count,), -1), torch.empty(count, 0), torch.empty(count, 0), targets)


def _count(outputs: torch.Tensor) -> int:
    return outputs.shape[1] if outputs.dim() == 3 else len(outputs)


def check_layer(driver: Driver, layer: str = "") -> None:
    """Look at up to two candidates, so that a learner without the layer is refused before anything is trained."""
    ids = next(driver.candidates(2), None)
    if ids is not None:
        with undisturbed(), _Extractor(driver, layer) as extract:
            extract(driver.choice_pool.inputs(ids))


def _cached(driver: Driver, pool: Any, ids: torch.Tensor, layer: str) -> Embedded:
    """Return features of ascending ids, computing those that are not in the cache."""
    model = "" if driver.is_solo else driver.ranks.share(lambda: _state(driver))  # all ranks must hit or miss alike
    kind = layer if pool is driver.choice_pool else f"{layer} of the training pool"
    known = driver.feature_cache.find(model, kind) if model else None
    if known is None or not len(known.ids):
        fresh = _embed(driver, pool, ids, layer)
        if model:
            driver.feature_cache.keep(model, kind, fresh)
        return fresh
    rows = torch.searchsorted(known.ids, ids).clamp_(max=len(known.ids) - 1)
    missing = known.ids[rows] != ids
    if bool(missing.any()):
        known = merged(known, _embed(driver, pool, ids[missing], layer))
        driver.feature_cache.keep(model, kind, known)
        rows = torch.searchsorted(known.ids, ids)
    return known if len(rows) == len(known.ids) else known.take(rows)


def _state(driver: Driver) -> str:
    """Identify the state of the learner; empty where it can't be told.

    A learner that is trained may have state of which its weights don't tell, so it counts as another in each step.
    """
    if not model_state(driver.learner):
        return ""
    step = "" if driver.config.skip_training else f"{driver.active_learning_step_idx} "
    return step + model_digest(driver.learner)


def _embed(driver: Driver, pool: Any, ids: torch.Tensor, layer: str) -> Embedded:
    with _Extractor(driver, layer) as extract:
        return joined(ids, len(ids), (pair for _, pair in chunks(driver, extract, ids=ids, pool=pool)))


class _Extractor:
    """Maps inputs to (features, outputs), both on the CPU; listens to a layer while its ``with`` block runs."""

    def __init__(self, driver: Driver, layer: str) -> None:
        self._driver = driver
        learner = driver.learner
        module = isinstance(learner, torch.nn.Module)
        if layer not in ("", "inputs") and not module:
            raise UsageError(
                f"the learner {type(learner).__name__} is no torch module and has no layer {layer!r}; use "
                "layer='inputs', or give it a method features(inputs)."
            )
        self._own = learner.features if not layer and inspect.ismethod(getattr(learner, "features", None)) else None
        self._of_inputs = layer == "inputs" or (self._own is None and not module)
        self._layer = layer
        self._hooks: list[Any] = []
        self._caught: torch.Tensor | None = None

    def __enter__(self) -> _Extractor:
        if self._own is None and not self._of_inputs:
            self._listen(self._driver.learner)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._caught = None

    def __call__(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self._caught = None
        outputs = self._driver.infer(inputs)
        if not isinstance(outputs, torch.Tensor):
            raise UsageError(
                f"the learner returned a {type(outputs).__name__}, not a tensor; give the Driver an "
                "inference_fn(learner, inputs) that returns one."
            )
        features = self._features(inputs)
        n = _count(outputs)
        if len(features) != n:
            raise UsageError(
                f"{self._layer or 'the last linear layer'} works on {len(features)} rows for {n} samples, so they "
                "can't be told apart; name a layer by layer=..., or use layer='inputs'."
            )
        return features, outputs.detach().cpu()

    def _features(self, inputs: Any) -> torch.Tensor:
        if self._own is None and not self._of_inputs:
            if self._caught is None:
                raise UsageError(
                    f"the learner doesn't call {self._layer or 'any torch.nn.Linear'} to infer; name another layer by "
                    "layer=..., or use layer='inputs'."
                )
            return _flat([self._caught])
        placed = place(inputs, self._driver.device, self._driver.dtype)
        if self._own is None:
            return _flat(tensors_of(placed))
        with evaluating(self._driver.learner):
            return _flat(tensors_of(self._own(placed)))

    def _listen(self, learner: torch.nn.Module) -> None:
        if self._layer:
            named = {name: one for name, one in learner.named_modules() if name}
            if self._layer not in named:
                raise UsageError(
                    f"the learner {type(learner).__name__} has no layer {self._layer!r}: "
                    f"{did_you_mean(self._layer, [*named, 'inputs'])}."
                )
            self._hooks = [named[self._layer].register_forward_hook(lambda _module, _given, out: self._catch(out))]
            return
        linear = [one for one in learner.modules() if isinstance(one, torch.nn.Linear)]
        if not linear:
            raise UsageError(
                f"the learner {type(learner).__name__} has no torch.nn.Linear whose input could be its features; name "
                "a layer by layer=..., or use layer='inputs'."
            )
        for one in linear:  # whichever is called last
            self._hooks.append(one.register_forward_pre_hook(lambda _m, *given: self._catch(given), with_kwargs=True))

    def _catch(self, given: Any) -> None:
        found = tensors_of(given)
        self._caught = found[0].detach().clone() if found else None  # what comes next may work in place


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    wide = [one.detach().flatten(1).to(torch.promote_types(one.dtype, torch.float32)).cpu() for one in tensors]
    return torch.cat(wide, dim=1)
