"""Training on several ranks: each computes gradients on batches of its own, and the gradients are averaged."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from alcore.distributed.manager import DistributedManager
from alcore.distributed.ranks import Ranks
from alcore.errors import UsageError
from alcore.protocols import TrainStep


class _Step(torch.nn.Module):
    """A module whose forward is the training step, so that the step sees the bare learner."""

    def __init__(self, learner: torch.nn.Module, step: TrainStep) -> None:
        super().__init__()
        self.learner, self.step = learner, step

    def forward(self, batch: Any) -> torch.Tensor:
        return self.step(self.learner, batch)


class ParallelStep:
    """A training step after whose backward pass all ranks have the same gradients.

    Parameters
    ----------
    learner
        On its device; its weights and buffers become those of rank 0.
    step
        ``step(learner, batch)`` returns the loss.
    manager
        Says where, and how.

    Notes
    -----
    The learner is not wrapped: `torch.nn.parallel.DistributedDataParallel` is around an inner module which calls the
    step (Li et al. 2020, PyTorch Distributed, VLDB). Its hooks are on the parameters, so that any training loop works
    which calls this step and then ``loss.backward()``.
    """

    def __init__(self, learner: torch.nn.Module, step: TrainStep, manager: DistributedManager) -> None:
        devices = [manager.device] if manager.device.type == "cuda" else None
        self._learner = learner
        self._parallel = DistributedDataParallel(
            _Step(learner, step),
            device_ids=devices,
            find_unused_parameters=manager.find_unused_parameters,
            process_group=manager.training_group,
        )

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        """Return the loss of a batch of this rank."""
        if model is not self._learner:
            raise UsageError(
                f"the training loop calls the step with a {type(model).__name__} that is not the learner; on several "
                "ranks the step must be called as train_step_fn(model, batch) with the model that the loop was given."
            )
        try:
            loss: torch.Tensor = self._parallel(batch)
        except RuntimeError as error:
            if "finished reduction" not in str(error):
                raise
            raise UsageError(
                "a batch left some parameters of the learner without a gradient, which several ranks can't average; "
                "freeze them, or give DistributedManager(find_unused_parameters=True)."
            ) from error
        return loss


def share_buffers(learner: Any, ranks: Ranks) -> None:
    """Copy the buffers of rank 0 to all ranks, which torch does only at the beginning of a training batch."""
    buffers = dict(learner.named_buffers()) if ranks.size > 1 and isinstance(learner, torch.nn.Module) else {}
    if not buffers:
        return
    shared = ranks.share(lambda: {name: buffer.detach() for name, buffer in buffers.items()})
    with torch.no_grad():
        for name, buffer in buffers.items():
            if not ranks.main:
                buffer.copy_(shared[name])


def with_synchronized_normalization(learner: Any) -> Any:
    """Return the learner with batch normalization over all ranks, changed in place except for its outermost module."""
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
