"""How often and how much the classes count in training: the order of an epoch, and the weights of the default loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch

from alcore.errors import UsageError
from alcore.pools.offers import has_batch
from alcore.protocols import DataInfo
from alcore.randomness import preserve_rng_state, seed_everything


class ClassBalance:
    """Applies ``TrainingConfig.sampler`` and ``TrainingConfig.class_weights``.

    Parameters
    ----------
    pool
        The pool that is trained on.
    sampler, class_weights
        As in `alcore.config.TrainingConfig`.
    warn
        Called with a warning.
    """

    def __init__(
        self,
        pool: Any,
        sampler: Literal["balanced"] | Callable[[Any, torch.Generator], Iterable[int]] | None,
        class_weights: Literal["balanced"] | Sequence[float] | None,
        warn: Callable[[str], None],
    ) -> None:
        self._pool, self._sampler, self._class_weights, self._warn = pool, sampler, class_weights, warn
        self._balanced: tuple[int, tuple[float, ...]] | None = None  # for so many labeled items

    def weighted(self, info: DataInfo | None) -> DataInfo | None:
        """Return what is known about the data, with the weights that its classes have now."""
        weights = self._class_weights
        if info is None or weights is None or info.task != "classification":
            return info
        values = self._balanced_weights(info) if isinstance(weights, str) else tuple(map(float, weights))
        return dataclasses.replace(info, class_weights=values)

    @property
    def choose(self) -> Callable[[torch.Generator], torch.Tensor] | None:
        """Returns the positions of an epoch, int64 (P,), from its generator; None where all are shuffled."""
        return None if self._sampler is None else self._positions

    def check(self, info: DataInfo | None) -> None:
        """Check that sampler and class weights fit the data, as far as it is labeled.

        Raises
        ------
        UsageError
            When the task is not classification, targets are unknown or not classes, or a sampler returns something
            else than positions.
        """
        sampler, weights = self._sampler, self._class_weights
        if sampler is None and weights is None:
            return
        balanced = [
            f"TrainingConfig.{name} is 'balanced'"
            for name, value in (("sampler", sampler), ("class_weights", weights))
            if isinstance(value, str)
        ]
        needs = balanced or (["TrainingConfig.class_weights is given"] if weights is not None else [])
        if needs and info is not None and info.task != "classification":
            raise UsageError(
                f"{needs[0]}, and the task of this data is {info.task}, which has no classes; leave it out."
            )
        given = 0 if weights is None or isinstance(weights, str) else len(weights)
        if given and info is not None and info.classes and given != info.classes:
            raise UsageError(
                f"TrainingConfig.class_weights has {given} weights, and this data has {info.classes} classes; give one "
                "for each."
            )
        if not len(self._pool):
            return
        if balanced:
            missing = _missing(classes_of(self._pool, balanced[0]), info)
            if missing:
                self._warn(
                    f"{balanced[0]}, and no sample of {'class' if len(missing) == 1 else 'the classes'} "
                    f"{', '.join(missing)} is labeled yet; only the others are balanced until one is"
                )
        if sampler is not None:
            self._positions(torch.Generator())

    def _positions(self, generator: torch.Generator) -> torch.Tensor:
        if not callable(self._sampler):
            return balanced_positions(classes_of(self._pool, "TrainingConfig.sampler is 'balanced'"), generator)
        with preserve_rng_state():
            seed_everything(generator.initial_seed())
            drawn = self._sampler(self._pool, generator)
            positions = _as_positions(drawn, len(self._pool))
        if positions is None:
            raise UsageError(
                "TrainingConfig.sampler must return whole numbers from 0 to "
                f"{len(self._pool) - 1}, positions in the pool's labeled items, and at least one of them; this one "
                f"returned {str(drawn)[:80]}."
            )
        return positions

    def _balanced_weights(self, info: DataInfo) -> tuple[float, ...]:
        count = len(self._pool)
        if not count:
            return ()
        if self._balanced is None or self._balanced[0] != count:
            classes = classes_of(self._pool, "TrainingConfig.class_weights is 'balanced'")
            self._balanced = count, balanced_weights(classes, info.classes)
        return self._balanced[1]


def balanced_weights(classes: torch.Tensor, count: int) -> tuple[float, ...]:
    """Return weights that make up for how many samples a class has.

    Parameters
    ----------
    classes
        The class of each sample: int64, shape (N,).
    count
        How many classes there are.

    Returns
    -------
    tuple of float
        ``N / (P * n)`` for a class with n samples, where P classes have any: the formula of King and Zeng (2001),
        Logistic regression in rare events data, which scikit-learn's ``class_weight="balanced"`` has too. A class
        without samples has a weight of 1.
    """
    numbers = torch.bincount(classes, minlength=max(count, 2))
    present = int((numbers > 0).sum())
    return tuple(len(classes) / (present * n) if n else 1.0 for n in numbers.tolist())


def balanced_positions(classes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return as many positions as there are samples, in which each class occurs equally often.

    Parameters
    ----------
    classes
        The class of each sample: int64, shape (N,).
    generator
        What is drawn from.

    Returns
    -------
    torch.Tensor
        Positions, int64, shape (N,). Numbers of two classes differ by at most one, and so do those of two
        samples of a class.
    """
    present = torch.unique(classes)
    share, rest = divmod(len(classes), len(present))
    more = torch.randperm(len(present), generator=generator)[:rest].tolist()
    parts = []
    for i, number in enumerate(present):
        own, wanted = torch.nonzero(classes == number).flatten(), share + (i in more)
        for start in range(0, wanted, len(own)):
            parts.append(own[torch.randperm(len(own), generator=generator)[: wanted - start]])
    chosen = torch.cat(parts)
    return chosen[torch.randperm(len(chosen), generator=generator)]


def classes_of(pool: Any, why: str) -> torch.Tensor:
    """Return the class of each labeled item of a pool, in training order: int64, shape (N,).

    Parameters
    ----------
    pool
        Its items are ``(input, target)``.
    why
        Beginning of the message, where it has no classes.
    """
    places = torch.arange(len(pool))
    with preserve_rng_state():
        if has_batch(pool):
            targets = [_target(pool.batch(part), why) for part in torch.split(places, 4096)]
        else:
            targets = [torch.as_tensor(_target(pool[place], why)).reshape(1, -1) for place in places.tolist()]
    classes = torch.cat([torch.as_tensor(target) for target in targets]).cpu()
    flat = classes.reshape(-1)
    if len(flat) != len(places) or classes.is_complex() or bool((flat != flat.long()).any()) or bool((flat < 0).any()):
        raise UsageError(
            f"{why}, and the targets of this pool are not classes but {classes.dtype} of shape {tuple(classes.shape)}; "
            "each must be a whole number from 0."
        )
    return flat.long()


def _target(item: Any, why: str) -> Any:
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[1]
    raise UsageError(
        f"{why}, and the class of an item is unknown: this pool's are not pairs of input and target but a "
        f"{type(item).__name__}. Give a function sampler(pool, generator), or leave it out."
    )


def _missing(classes: torch.Tensor, info: DataInfo | None) -> list[str]:
    numbers = torch.bincount(classes, minlength=info.classes if info is not None else 0).tolist()
    return [str(label) for label, number in enumerate(numbers) if not number]


def _as_positions(drawn: Iterable[Any], size: int) -> torch.Tensor | None:
    try:
        positions = torch.as_tensor(drawn if isinstance(drawn, torch.Tensor) else [int(position) for position in drawn])
    except (TypeError, ValueError):
        return None
    if positions.dtype != torch.int64 or positions.dim() != 1 or not len(positions):
        return None
    return None if bool(((positions < 0) | (positions >= size)).any()) else positions
