"""TEMPORARY: names of core whose homes are being moved while this is written.

Once the packages are merged, imports from here become imports from the public words named in the comments, and
`prepare` and `choose` become `Driver.prepare` and `Driver.choose`.
"""
# mypy: ignore-errors
# ruff: noqa

from __future__ import annotations

import inspect
from typing import Any

from alcore import Driver, TensorPool

try:  # alcore.randomness
    from alcore.randomness import global_rng_state, preserve_rng_state
except ImportError:
    from alcore.driver.state import global_generators as global_rng_state
    from alcore.driver.state import undisturbed as preserve_rng_state

try:  # alcore.inference
    from alcore.inference import (
        Features,
        TopK,
        check_outputs,
        chunks,
        class_probabilities,
        evaluate,
        evaluating,
        kind_of,
        model_digest,
        model_state,
        predicted_classes,
    )
except ImportError:
    from alcore.driver.state import model_digest, model_state
    from alcore.inference.extraction import Embedded as Features
    from alcore.inference.outputs import check_outputs, class_probabilities, kind_of, predicted_classes
    from alcore.inference.streaming import TopK, chunks, evaluate
    from alcore.pools.batches import evaluating

try:  # alcore.pools
    from alcore.pools import tensors_of
except ImportError:
    from alcore.pools.batches import tensors_of

try:  # alcore.store
    from alcore.store import Run
except ImportError:
    from alcore.store.reading import Run

try:  # alcore.training
    from alcore.training import resolve_train_step
except ImportError:
    from alcore.training.optimizer import resolve_train_step

try:  # alcore.plugins
    from alcore.plugins import describe_factory, installed, load_factory, parameters_of, validate
except ImportError:
    from alcore.plugins import registry as installed
    from alcore.plugins import resolve as load_factory
    from alcore.plugins.signatures import describe as describe_factory
    from alcore.plugins.signatures import parameters as parameters_of
    from alcore.plugins.signatures import validate

from alcore.protocols import Phase
from alcore.randomness import seed_everything

LABELED = "labeled" if "labeled" in inspect.signature(TensorPool).parameters else "labelled"


def tensor_pool(inputs: Any, targets: Any, labeled: Any, info: Any, cls: Any = TensorPool) -> Any:
    """`TensorPool(inputs, targets, labeled=labeled, info=info)`."""
    return cls(inputs, targets, info=info, **{LABELED: labeled})


def prepare(driver: Any) -> None:
    """`driver.prepare()`."""
    (driver.prepare if hasattr(driver, "prepare") else driver._prepare)()


def choose(driver: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """`driver.choose(*args, **kwargs)`: the query phase without a run; returns what was asked for."""
    if hasattr(driver, "choose"):
        return list(driver.choose(*args, **kwargs))
    requests, total = driver.query_queue, driver.config.samples_per_step
    driver.phase = Phase.QUERY
    requests.begin(driver.active_learning_step_idx, float("inf"))
    for left, strategy in zip(range(len(driver.query_strategies), 0, -1), driver.query_strategies, strict=True):
        share = None if total is None else -(-(total - len(requests.asked)) // left)
        requests.asking(driver.strategy_name(strategy), share)
        strategy.sample(requests, *args, **kwargs)
    driver.phase = None
    return list(requests.asked)
