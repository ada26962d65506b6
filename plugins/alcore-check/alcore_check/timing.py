"""How long the trainings of a campaign will take, from the batches of its first one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class BatchTimer:
    """Notes when each batch of a training begins and ends, by hooks of torch; nothing of a learner that has none."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []
        self._handles: list[Any] = []

    def start(self, learner: Any) -> None:
        """Forget what is known, and begin to note."""
        self.begun, self.ended = [], []
        if isinstance(learner, torch.nn.Module):
            self._handles.append(learner.register_forward_pre_hook(self._begin))
            self._handles.append(register_optimizer_step_post_hook(self._end))

    def stop(self) -> None:
        """Note nothing more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, learner: torch.nn.Module, *_inputs: Any) -> None:
        if learner.training and len(self.begun) == len(self.ended):  # not where a step calls the learner again
            self.begun.append(time.perf_counter())

    def _end(self, *_arguments: Any) -> None:
        if len(self.ended) < len(self.begun):
            self.ended.append(time.perf_counter())


def training_time(
    timer: BatchTimer, seconds: float, samples: int, batch_size: int, epochs: Callable[[int], int]
) -> Callable[[int, int], float]:
    """Return a function of the number of a training, from 0, and of its samples, that gives its seconds.

    Parameters
    ----------
    timer
        What was noted of the first training.
    seconds
        How long that took.
    samples
        How many samples it had.
    batch_size
        Samples in a batch.
    epochs
        Returns the number of epochs of a training, by its number.

    Notes
    -----
    An epoch takes as long as one of the first training, plus what each batch more takes. What is slow the first time
    only, such as libraries that load themselves, is in the first epoch, and is counted once. Where batches were not
    noted, of a learner that is fitted whole for instance, the time is taken to grow with the samples.
    """
    count, batches = epochs(0), max(1, math.ceil(samples / batch_size))
    steps = len(timer.ended) // count if count > 0 else 0
    if count < 2 or not steps or len(timer.begun) != steps * count or len(timer.ended) != len(timer.begun):
        return lambda _training, now: seconds * now / max(samples, 1)
    starts = timer.begun[::steps]
    whole = [end - start for start, end in pairwise(starts)]
    epoch = statistics.median(whole[1:] or whole)
    ends = timer.begun[1::steps] if steps > 1 else timer.ended  # with the loading of a batch, where that is seen
    each = [end - start for start, end in zip(starts[1:], ends[1:], strict=True)]
    batch = min(statistics.median(each or whole) * steps / batches, epoch / batches)
    if torch.cuda.is_available():  # steps may return before they are done
        batch = epoch / batches
    once = max(0.0, seconds - count * epoch)

    def predicted(training: int, now: int) -> float:
        more = max(0, math.ceil(now / batch_size) - batches)
        return epochs(training) * (epoch + more * batch) + (0.0 if training else once)

    return predicted
