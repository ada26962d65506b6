"""Extract features of samples: the learner's activations before its last layer, with its outputs, in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from alcore.errors import UsageError, did_you_mean
from alcore.inference.context import InferenceContext, inference_context
from alcore.inference.features import Features, common, join_chunks, put_together
from alcore.inference.learner import learner_state
from alcore.inference.streaming import chunks
from alcore.outputs.kinds import check_outputs, check_tensor
from alcore.outputs.modes import evaluating
from alcore.pools.batches import rows_within, tensors_of, to_device
from alcore.pools.offers import has_batch, labeled_ids
from alcore.pools.tensor_pool import is_choosable
from alcore.protocols import RunContext
from alcore.randomness import preserve_rng_state

_INPUT_BYTES = 2**22  # of inputs that are copied at a time


def extract_features(
    context: RunContext, ids: torch.Tensor | None = None, layer: str = "", *, outputs: bool = True
) -> Features:
    """Return features and outputs of candidates.

    Parameters
    ----------
    context
        The run, with its pool and learner.
    ids
        Samples of the pool to choose from, ascending: int64 (N,); all candidates if None.
    layer
        ``""`` for the penultimate activations: the input of the last `torch.nn.Linear` that the learner calls, or what
        its method ``features(inputs)`` returns, or the inputs if the learner is not a module. ``"inputs"`` for the
        inputs themselves. Otherwise the dotted name of a submodule, whose (first) output is taken. All are flattened.
    outputs
        Whether the outputs are needed. If not, they have shape (N, 0), and the learner is not called for ``"inputs"``.

    Notes
    -----
    Memory is O(N D). Features that the run's cache has for this state of the learner are not computed again; they are
    the same to the last bit.

    Raises
    ------
    UsageError
        If the learner has no such layer.
    """
    run = inference_context(context)
    if ids is None:
        parts = list(run.candidates())
        ids = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    return _cached(run, run.choice_pool, ids, layer, outputs)


def labeled_features(context: RunContext, layer: str = "", *, outputs: bool = True) -> Features:
    """Return features, outputs and targets of the labeled samples, in training order.

    Parameters are those of `extract_features`. Samples of a pool with ``labeled_ids`` and ``inputs(ids)`` are not
    augmented; the items of any other pool are taken as training sees them.
    """
    run = inference_context(context)
    pool = run.train_datapool
    if pool is None or not len(pool):
        return join_chunks(torch.empty(0, dtype=torch.int64), 0, [])
    with preserve_rng_state():  # a pool may augment what it returns
        if is_choosable(pool) and (labeled := labeled_ids(pool)) is not None and has_batch(pool):
            ids, order = torch.sort(labeled)
            features = _cached(run, pool, ids, layer, outputs).take(order.argsort())
            own = features.ids if pool is run.choice_pool else torch.full_like(ids, -1)
            return features._replace(ids=own, targets=pool.batch(torch.arange(len(pool)))[1].cpu())
        targets: list[torch.Tensor] = []
        with _Extractor(run, layer, outputs) as extract:
            features = join_chunks(torch.full((len(pool),), -1), len(pool), _of_items(run, pool, extract, targets))
    return features._replace(targets=torch.cat(targets))


def _of_items(
    run: InferenceContext, pool: Any, extract: _Extractor, targets: list[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for inputs, target in run.ordered_batches(pool):
        targets.append(target.cpu())
        yield extract(inputs)


def outputs_of(context: RunContext, ids: torch.Tensor) -> Features:
    """Return the outputs for samples of the pool to choose from, without features: those have shape (N, 0)."""
    passes = (check_outputs(outputs).detach().cpu() for _, outputs in chunks(context, ids=ids))
    return join_chunks(ids, len(ids), ((torch.empty(_count(out), 0), out) for out in passes))


def labeled_targets(context: RunContext) -> Features:
    """Return the targets of the labeled samples, in training order, without features and outputs."""
    pool = context.train_datapool
    if pool is None or not len(pool):
        return join_chunks(torch.empty(0, dtype=torch.int64), 0, [])
    with preserve_rng_state():  # a pool may augment what it returns
        targets = torch.cat([target.cpu() for _, target in context.ordered_batches(pool)])
    count = len(targets)
    return Features(torch.full((count,), -1), torch.empty(count, 0), torch.empty(count, 0), targets)


def _count(outputs: torch.Tensor) -> int:
    return outputs.shape[1] if outputs.dim() == 3 else len(outputs)


def check_layer(context: RunContext, layer: str = "") -> None:
    """Raise `UsageError` if the learner does not have the layer, by a forward pass of up to two candidates."""
    run = inference_context(context)
    ids = next(run.candidates(2), None)
    if ids is not None:
        with preserve_rng_state(), _Extractor(run, layer) as extract:
            extract(run.choice_pool.inputs(ids))


def _cached(run: InferenceContext, pool: Any, ids: torch.Tensor, layer: str, outputs: bool) -> Features:
    """Return features of ascending ids, computing those that are not in the cache."""
    if layer == "inputs" and not outputs:
        return _inputs_alone(run, pool, ids)
    # All ranks must find the same samples in their caches, since they share the forward passes for the others.
    model = "" if run.ranks.is_detached else run.ranks.share(lambda: learner_state(run))
    if not model:
        return _computed(run, pool, ids, layer, outputs)
    full = layer if pool is run.choice_pool else f"{layer} of the training pool"
    kind = full if outputs else f"{full} without outputs"
    cached = run.feature_cache.find(model, kind)
    if not outputs:
        cached += [_without_outputs(features) for features in run.feature_cache.find(model, full)]
    parts: list[tuple[torch.Tensor, Features]] = []
    missing = torch.ones(len(ids), dtype=torch.bool)
    for features in cached:
        rows, places = common(features.ids, ids)
        if len(places) == len(ids):
            return features if len(features.ids) == len(ids) else features.take(rows)
        new = missing[places]
        if bool(new.any()):
            parts.append((places[new], features.take(rows[new])))
            missing[places] = False
    if not parts or bool(missing.any()):
        fresh = _computed(run, pool, ids[missing] if parts else ids, layer, outputs)
        run.feature_cache.keep(model, kind, fresh)
        if not parts:
            return fresh
        parts.append((missing.nonzero().flatten(), fresh))
    return put_together(ids, parts)


def _without_outputs(features: Features) -> Features:
    return features._replace(outputs=torch.empty(len(features.ids), 0))


def _computed(run: InferenceContext, pool: Any, ids: torch.Tensor, layer: str, outputs: bool) -> Features:
    with _Extractor(run, layer, outputs) as extract:
        return join_chunks(ids, len(ids), (pair for _, pair in chunks(run, extract, ids=ids, pool=pool)))


def _inputs_alone(run: InferenceContext, pool: Any, ids: torch.Tensor) -> Features:
    """Return the inputs of samples, flattened, without calling the learner."""

    def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rows = rows_within(pool.inputs(ids[:1]), _INPUT_BYTES)
        for part in torch.split(ids, rows):
            run.safe_point()
            yield _flat(tensors_of(to_device(pool.inputs(part), run.device, run.dtype))), torch.empty(len(part), 0)

    return join_chunks(ids, len(ids), pairs() if len(ids) else ())


class _Extractor:
    """Maps inputs to (features, outputs), both on the CPU, inside a ``with`` block, where it has hooks on the layer."""

    def __init__(self, context: RunContext, layer: str, outputs: bool = True) -> None:
        self._context, self._outputs = context, outputs
        learner = context.learner
        module = isinstance(learner, torch.nn.Module)
        if layer not in ("", "inputs") and not module:
            raise UsageError(
                f"the learner {type(learner).__name__} is not a torch module, so it has no layer {layer!r}; use "
                "layer='inputs', or give it a method features(inputs)."
            )
        self._own = learner.features if not layer and inspect.ismethod(getattr(learner, "features", None)) else None
        self._of_inputs = layer == "inputs" or (self._own is None and not module)
        self._layer = layer
        self._hooks: list[Any] = []
        self._caught: torch.Tensor | None = None

    def __enter__(self) -> _Extractor:
        if self._own is None and not self._of_inputs:
            self._add_hooks(self._context.learner)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._caught = None

    def __call__(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self._caught = None
        if self._of_inputs and not self._outputs:
            features = self._features(inputs)
            return features, torch.empty(len(features), 0)
        outputs = check_tensor(self._context.infer(inputs))
        features = self._features(inputs)
        n = _count(outputs)
        if len(features) != n:
            raise UsageError(
                f"{self._layer or 'the last linear layer'} has {len(features)} rows for {n} samples, so its rows "
                "can't be assigned to samples; name a layer by layer=..., or use layer='inputs'."
            )
        return features, outputs.detach().cpu() if self._outputs else torch.empty(n, 0)

    def _features(self, inputs: Any) -> torch.Tensor:
        if self._own is None and not self._of_inputs:
            if self._caught is None:
                raise UsageError(
                    f"the learner's forward pass doesn't call {self._layer or 'any torch.nn.Linear'}; name another "
                    "layer by layer=..., or use layer='inputs'."
                )
            return _flat([self._caught])
        moved = to_device(inputs, self._context.device, self._context.dtype)
        if self._own is None:
            return _flat(tensors_of(moved))
        with evaluating(self._context.learner):
            return _flat(tensors_of(self._own(moved)))

    def _add_hooks(self, learner: torch.nn.Module) -> None:
        if self._layer:
            named = {name: module for name, module in learner.named_modules() if name}
            if self._layer not in named:
                raise UsageError(
                    f"the learner {type(learner).__name__} has no layer {self._layer!r}: "
                    f"{did_you_mean(self._layer, [*named, 'inputs'])}."
                )
            self._hooks = [named[self._layer].register_forward_hook(lambda _module, _given, out: self._catch(out))]
            return
        linear = [module for module in learner.modules() if isinstance(module, torch.nn.Linear)]
        if not linear:
            raise UsageError(
                f"the learner {type(learner).__name__} has no torch.nn.Linear whose input could be its features; name "
                "a layer by layer=..., or use layer='inputs'."
            )
        for module in linear:  # the last one to be called counts
            self._hooks.append(
                module.register_forward_pre_hook(lambda _m, *given: self._catch(given), with_kwargs=True)
            )

    def _catch(self, given: Any) -> None:
        tensors = tensors_of(given)
        self._caught = tensors[0].detach().clone() if tensors else None  # the next layer may work in place


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    wide = [tensor.detach().flatten(1).to(torch.promote_types(tensor.dtype, torch.float32)).cpu() for tensor in tensors]
    return torch.cat(wide, dim=1)
