"""The relative error of predicted fields: of the mean sample, of the 95th percentile, and for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alcore.errors import UsageError
from alcore.inference import MeasuredOn, evaluate
from alcore.outputs import kind_of
from alcore.randomness import preserve_rng_state
from alcore_metrics.base import MetricsBase
from alcore_metrics.sample import Array
from alcore_metrics.values import check_finite, check_regression, check_values, match


class FieldsMetrology(MetricsBase):
    """Measure the relative L2 error of predicted fields, as a whole and for each channel.

    Parameters
    ----------
    on
        ``"validation"``, ``"pool"``, ``"train"`` (the labeled samples) or ``"unlabeled"`` (samples that may still be
        asked for, where the pool knows their answers); if not given, the first of the first three that there is. See
        `alcore.inference.evaluate`.
    channels
        Names of the channels, in their order; numbers if not given.

    Raises
    ------
    UsageError
        Before step 0 for classification, and if there is nothing of what `on` says; for outputs and targets that are
        not the same quantities, another number of channels, and targets that are NaN or infinite.
    AlcoreError
        If an output is NaN or infinite.

    Notes
    -----
    The error of a sample with field y and prediction f is ``||f - y|| / ||y||``, the Euclidean norm over all values of
    the field (Li et al., Fourier neural operator, ICLR 2021); of posterior samples (K, B, ...) the mean is the
    prediction. Targets of three or more axes, (B, C, ...), have C channels, and others are one channel.

    Each record holds ``step``, ``train_samples``, ``on``, ``relative_l2``, the mean over the samples,
    ``p95_relative_l2``, the error of the 95th percentile sample (the smallest that at least 95 % of the samples don't
    exceed), ``samples``, and for several or named channels ``per_channel``: a list with ``channel``, ``relative_l2``
    and ``p95_relative_l2``. Where a field is 0 everywhere its relative error is not defined: it is left out, and
    counted as ``zero_fields``; without any other they are NaN. If ``"unlabeled"`` samples have run out, ``samples`` is
    0 and the rest is missing. Memory is O(chunk), and one number a sample and channel.
    """

    def __init__(self, on: MeasuredOn | None = None, channels: Sequence[str] = ()) -> None:
        super().__init__(on)
        if isinstance(channels, str):
            raise UsageError(f"FieldsMetrology: channels is {channels!r}; give a list of names, [{channels!r}].")
        self.channels = tuple(channels)

    def check(self) -> None:
        """Raise `UsageError` for classification, outputs that are not those of a regression, and samples that lack."""
        check_regression(self.driver)
        super().check()
        pool = self.driver.train_datapool
        if self.channels and len(pool):
            with preserve_rng_state():  # a pool may augment what it returns
                item = pool[0]
            if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], torch.Tensor):
                self._check_names(item[1].shape[0] if item[1].dim() > 1 else 1)

    def compute(self, *args: Any, **kwargs: Any) -> None:
        """Measure, and append a record."""
        kind = kind_of(self.driver.learner, "regression")
        on, batches = evaluate(self.driver, self.on)
        parts: list[torch.Tensor] = []  # squared norms of error and field, by channel: (2, B, C)
        for outputs, targets in batches:
            predicted, true = match(check_values(outputs).cpu(), targets.cpu(), kind)
            check_finite("FieldsMetrology", predicted, true, sum(part.shape[1] for part in parts), on)
            channels = targets.shape[1] if targets.dim() > 2 else 1
            both = torch.stack([predicted - true, true]).reshape(2, len(true), channels, -1)
            parts.append(both.square().sum(dim=3))
        squares = torch.cat(parts, dim=1).numpy() if parts else np.empty((2, 0, 1))
        if not squares.shape[1]:
            self.record_nothing(on)
            return
        self.append_record(on=on, **self._metrics(squares))

    def _metrics(self, squares: Array) -> dict[str, Any]:
        count, channels = squares.shape[1:]
        self._check_names(channels)
        whole = squares.sum(axis=2)
        metrics = {**_relative(whole), "samples": count}
        if zero := int((whole[1] == 0).sum()):
            metrics["zero_fields"] = zero
        if self.channels or channels > 1:
            names = self.channels or tuple(map(str, range(channels)))
            metrics["per_channel"] = [
                {"channel": name, **_relative(squares[:, :, place])} for place, name in enumerate(names)
            ]
        return metrics

    def _check_names(self, channels: int) -> None:
        if self.channels and len(self.channels) != channels:
            raise UsageError(
                f"FieldsMetrology: {len(self.channels)} names of channels for {channels} channels: the second axis of "
                "the targets is that of channels where they have three axes or more."
            )


def _relative(squares: Array) -> dict[str, float]:
    """Return mean and 95th percentile of the relative errors, from squared norms of error and field, (2, B)."""
    error, field = squares
    relative = np.sqrt(error[field > 0] / field[field > 0])
    if not len(relative):
        return {"relative_l2": float("nan"), "p95_relative_l2": float("nan")}
    percentile = np.quantile(relative, 0.95, method="inverted_cdf")
    return {"relative_l2": float(relative.mean()), "p95_relative_l2": float(percentile)}
