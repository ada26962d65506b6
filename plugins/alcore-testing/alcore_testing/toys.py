"""Toy problems: a learner and a pool for each shape that outputs can have, and the plainest of strategies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.nn import functional

from alcore import BaseLabel, BaseMetrology, BaseQuery, DataInfo, TensorPool, UsageError
from alcore.outputs import predicted_classes

ALL_OUTPUTS = ("binary", "classes", "posterior", "values", "map", "mapping")
ALL_TASKS = ("classification", "regression")
ALL_KINDS = ("logits", "probabilities")

DTYPES = (torch.float32, torch.float64)
"""What the contracts compute in."""
FEATURES, MEMBERS = 4, 5
LABELED = (1, 8, 15, 22, 29, 36)
"""Ids of the samples that are labeled at the start; every class is among them."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, and what a learner returns for it.

    Parameters
    ----------
    name
        The id of the test.
    outputs
        The claim that covers it.
    shape
        Of the outputs; ``"B"`` stands for the number of samples, ``"K"`` for that of posterior samples.
    task, classes
        As in `DataInfo`.
    kind
        ``"logits"`` or ``"probabilities"``.
    """

    name: str
    outputs: str
    shape: tuple[int | str, ...]
    task: Literal["classification", "regression"] = "classification"
    classes: int = 0
    kind: str = "logits"

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("classes", "classes", ("B", 3), classes=3),
    Case("classes-probabilities", "classes", ("B", 3), classes=3, kind="probabilities"),
    Case("binary", "binary", ("B", 1), classes=2),
    Case("binary-flat", "binary", ("B",), classes=2),
    Case("binary-probabilities", "binary", ("B", 1), classes=2, kind="probabilities"),
    Case("posterior", "posterior", ("K", "B", 3), classes=3),
    Case("posterior-binary", "posterior", ("K", "B", 1), classes=2),
    Case("posterior-probabilities", "posterior", ("K", "B", 3), classes=3, kind="probabilities"),
    Case("values", "values", ("B", 1), "regression"),
    Case("values-flat", "values", ("B",), "regression"),
    Case("posterior-values", "posterior", ("K", "B", 1), "regression"),
    Case("map", "map", ("B", 3, 2, 2), classes=3),
    Case("mapping", "mapping", ("B", 1), classes=2),
)
_BY_NAME = {case.name: case for case in CASES}


def find_case(case: Case | str) -> Case:
    """Return a case, which may be given by name."""
    return _BY_NAME[case] if isinstance(case, str) else case


def toy_pool(
    case: Case | str = "classes",
    samples: int = 40,
    labeled: Sequence[int] | None = None,
    *,
    scale: float = 1.0,
    seed: int = 0,
    inputs: torch.Tensor | None = None,
) -> TensorPool:
    """Return Gaussian clouds, one a class, or the points of a plane for regression.

    Parameters
    ----------
    case
        Task and number of classes.
    samples
        How many; sample i is of class i modulo the number of classes.
    labeled
        Ids that are labeled at the start; six of all classes where it is None.
    scale
        Factor on all inputs.
    seed
        Of the inputs.
    inputs
        Used as they are, in place of drawn ones: shape (N, 4).
    """
    case = find_case(case)
    classes = torch.arange(samples if inputs is None else len(inputs)) % max(case.classes, 1)
    if inputs is None:
        draw = torch.Generator().manual_seed(seed)
        inputs = torch.randn(samples, FEATURES, generator=draw) + classes[:, None]
    targets = classes
    if case.task == "regression":
        targets = inputs @ torch.tensor([1.0, -0.5, 0.25, 0.0], dtype=inputs.dtype) + 0.1
    labeled_ids = [sample for sample in (LABELED if labeled is None else labeled) if sample < len(inputs)]
    info = DataInfo(case.task, case.classes, FEATURES, (FEATURES,))
    return TensorPool(inputs * scale, targets, labeled=labeled_ids, info=info)


class _BatchNorm(torch.nn.BatchNorm1d):
    """Batch norm that also takes a batch of one, as the last of an epoch may be."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalize; a batch of one by the running statistics."""
        if self.training and len(inputs) == 1:
            return functional.batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias)
        return super().forward(inputs)


class ToyLearner(torch.nn.Module):
    """A small network with all that a careless strategy could disturb: batch norm, dropout, a frozen layer.

    Parameters
    ----------
    case
        What it returns.
    """

    def __init__(self, case: Case | str = "classes") -> None:
        super().__init__()
        self.case = find_case(case)
        self.outputs = self.case.kind
        numbers = math.prod(MEMBERS if axis == "K" else 1 if axis == "B" else int(axis) for axis in self.case.shape)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 8), _BatchNorm(8), torch.nn.SiLU(), torch.nn.Dropout(0.3)
        )
        self.head = torch.nn.Linear(8, numbers)

    def forward(self, inputs: torch.Tensor) -> Any:
        """Map inputs, shape (B, 4), to outputs of the shape of its case."""
        flat = self.head(self.body(inputs.reshape(len(inputs), -1)))
        rest = [MEMBERS if axis == "K" else int(axis) for axis in self.case.shape if axis != "B"]
        outputs = flat.reshape(len(inputs), *rest)
        if self.case.shape[0] == "K":
            outputs = outputs.movedim(1, 0)
        if self.outputs == "probabilities":
            outputs = outputs.softmax(-1) if outputs.shape[-1] > 1 else outputs.sigmoid()
        return {"y": outputs} if self.case.outputs == "mapping" else outputs


def toy_learner(case: Case | str = "classes", seed: int = 0) -> ToyLearner:
    """Return a `ToyLearner` whose weights depend on the seed alone; its batch norm has seen a few batches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner = ToyLearner(case)
        for _ in range(3):
            learner.body(torch.randn(16, FEATURES) * 2 + 1)
    return learner


def toy_loss(model: Any, batch: Any) -> torch.Tensor:
    """Return a loss for outputs of any shape: the squared distance of each number from the target."""
    inputs, targets = batch
    outputs = model(inputs)
    outputs = outputs["y"] if isinstance(outputs, dict) else outputs
    batch_axis = 1 if outputs.dim() == 3 else 0
    flat = outputs.movedim(batch_axis, 0).reshape(len(targets), -1)
    return functional.mse_loss(flat, targets.reshape(-1, 1).to(flat.dtype).expand_as(flat))


def toy_loop(
    model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, *, train_step_fn: Any = None,
    on_epoch_end: Any = None, **kwargs: Any,
) -> None:  # fmt: skip
    """Train in the plainest way; a learner without parameters is left as it is."""
    if optimizer is None:
        return
    model.train()
    for epoch in range(max_epochs):
        losses = []
        for batch in train_dataloader:
            optimizer.zero_grad()
            loss = train_step_fn(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        if on_epoch_end is not None:
            on_epoch_end(epoch, {"loss": sum(losses) / len(losses)})


class ToyQuery(BaseQuery):
    """Ask for the candidates with the lowest ids."""

    def __init__(self, max_samples: int = 3) -> None:
        if max_samples < 0:
            raise UsageError(f"max_samples is {max_samples}; it must not be negative.")
        self.max_samples = max_samples

    def check(self) -> None:
        """Refuse a pool that doesn't list its samples."""
        next(self.driver.candidates(1), None)

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Ask for the first candidates."""
        left = self.wanted
        for ids in self.driver.candidates():
            query_queue.put_many(ids[:left].tolist())
            left -= min(left, len(ids))
            if not left:
                break


class ToyLabel(BaseLabel):
    """Answer each request with its sample id, one commit each."""

    labels_by_id = True

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        """Pass every request on."""
        while not queue_to_label.empty():
            serialize_queue.put(queue_to_label.get())


class ToyMetrology(BaseMetrology):
    """Record the share of right answers on the whole pool, or the error of a regression."""

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure on every sample of the pool to choose from."""
        pool = self.driver.choice_pool
        ids = torch.arange(pool.total)
        targets = torch.stack([pool.answer(sample)[1] for sample in ids.tolist()])
        outputs = self.driver.infer(pool.inputs(ids))
        if targets.is_floating_point():
            error = float((outputs.reshape(len(ids)) - targets).square().mean())
            self.append_record(mse=error, rmse=math.sqrt(error), score=-error)
            return
        right = float((predicted_classes(outputs, self.driver.learner.outputs) == targets).double().mean())
        self.append_record(accuracy=right, f1=right, score=right)
