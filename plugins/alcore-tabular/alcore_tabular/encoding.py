"""Turning numbers and categories into standardized features, learnt from the training part alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from alcore.errors import UsageError
from alcore_tabular.messages import listed, shown, warn
from alcore_tabular.raw_table import Array, Content, absent

_FILLER = "(missing)"
_BLOCK = 8192  # rows that are standardized at once, so that a large array is not copied in double precision


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What was learnt from the rows that are trained on.

    Parameters
    ----------
    numbers
        Places of the numeric columns that vary: int64, shape (D,).
    center, scale
        Their mean and standard deviation (population): float64, shape (D,).
    fill
        Their median, which takes the place of missing values: float64, shape (D,).
    texts
        Places of the categorical columns that vary: int64, shape (E,).
    categories
        Fitted on those columns; None where there are none.
    """

    numbers: Array
    center: Array
    scale: Array
    fill: Array
    texts: Array
    categories: Any = None

    @property
    def features(self) -> int:
        """Number of features: one a numeric column, one a category."""
        one_hot = 0 if self.categories is None else sum(len(known) for known in self.categories.categories_)
        return len(self.numbers) + one_hot

    def transform(self, content: Content) -> Array:
        """Return the features of these rows: float32, shape (N, features).

        A category that the training part lacks is zero in all features of its column, with a warning.
        """
        result = np.empty((len(content), self.features), dtype=np.float32)
        width = len(self.numbers)
        for start in range(0, len(content), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = content.numbers[rows][:, self.numbers].astype(np.float64)
            block = np.where(np.isnan(block), self.fill, block)
            with np.errstate(over="ignore"):
                result[rows, :width] = (block - self.center) / self.scale
        self._refuse_overflow(content, result)
        if self.categories is not None:
            texts = _filled(content.texts[:, self.texts])
            self._warn_unknown(content, texts)
            result[:, width:] = self.categories.transform(texts)
        return result

    def _refuse_overflow(self, content: Content, result: Array) -> None:
        rows, places = np.nonzero(~np.isfinite(result[:, : len(self.numbers)]))
        if len(rows):
            name = content.number_names[self.numbers[places[0]]]
            content.refuse(
                name,
                "has a value that is too far from the others to be standardized: "
                f"{content.at(int(rows[0]), name)}. Correct it, or {content.leave_out(name)}",
            )

    def _warn_unknown(self, content: Content, texts: Array) -> None:
        for place, known in enumerate(self.categories.categories_):
            new = np.flatnonzero(~np.isin(texts[:, place].astype(str), known.astype(str)))
            if len(new):
                name = content.text_names[self.texts[place]]
                warn(
                    f"{content.file}: column {name!r} holds categories that the training part lacks, in "
                    f"{len(new)} of the {len(content)} held-out rows, for instance "
                    f"{shown(texts[new[0], place])}; they count as none."
                )


def fit(content: Content) -> Encoder:
    """Learn from the rows of the training part; a column without spread is left out, with a warning.

    Raises
    ------
    UsageError
        If no column is left, or if numbers are too large to be standardized.
    """
    center, scale, fill, constant = _moments(content)
    texts = _filled(content.texts)
    alike = np.array([len(set(texts[:, place])) == 1 for place in range(texts.shape[1])], dtype=bool)
    dull = [name for name, same in zip(content.number_names, constant, strict=True) if same]
    dull += [name for name, same in zip(content.text_names, alike, strict=True) if same]
    if len(dull) == len(constant) + len(alike):
        raise UsageError(
            f"{content.file}: every column beside the target is constant, so there is nothing to learn from."
        )
    if dull:
        one = len(dull) == 1
        warn(
            f"{content.file}: {'the column' if one else f'{len(dull)} columns'} {listed(dull)} "
            f"{'has' if one else 'have'} one value in all {len(content)} training rows and "
            f"{'is' if one else 'are'} left out."
        )
    varied, told = np.flatnonzero(~constant), np.flatnonzero(~alike)
    encoder = None
    if len(told):
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        encoder.fit(texts[:, told])
    return Encoder(varied, center[varied], scale[varied], fill[varied], told, encoder)


def _moments(content: Content) -> tuple[Array, Array, Array, Array]:
    """Return mean, standard deviation and median of each column, and whether it is constant: shapes (F,)."""
    width = content.numbers.shape[1]
    center, scale, fill = np.zeros(width), np.zeros(width), np.zeros(width)
    constant = np.ones(width, dtype=bool)
    for place in range(width):
        column = content.numbers[:, place].astype(np.float64)
        gaps = np.isnan(column)
        if gaps.all():
            continue
        if gaps.any():
            fill[place] = np.median(column[~gaps])
            column[gaps] = fill[place]
        with np.errstate(over="ignore", invalid="ignore"):
            center[place], scale[place] = column.mean(), column.std()
        if not np.isfinite(scale[place]):
            name = content.number_names[place]
            largest = int(np.abs(column).argmax())
            content.refuse(
                name,
                f"has numbers that are too large to be standardized: {content.at(largest, name)}. Give it "
                f"in another unit, or {content.leave_out(name)}",
            )
        constant[place] = column.min() == column.max() or scale[place] == 0
    return center, scale, fill, constant


def _filled(texts: Array) -> Array:
    return np.where(absent(texts), _FILLER, texts)
