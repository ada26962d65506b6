"""Encode numbers and categories as standardized features, fitted to the training part alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from alcore.errors import UsageError
from alcore_tabular.messages import listed, shown, warn
from alcore_tabular.raw_table import Array, RawTable, absent
from alcore_tabular.standalone import MISSING, word_weights

_COLUMNS = 64  # columns measured at once
_BLOCK = 8192  # rows standardized at once, so that a large array is not copied in double precision


class Words(NamedTuple):
    """The vocabulary of a column of free text.

    Parameters
    ----------
    words
        The words, sorted.
    weights
        The inverse document frequency of each.
    """

    words: Sequence[str]
    weights: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder, fitted to the rows of the training part.

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
        The categories of each of those columns in the training part, sorted.
    free
        Places of the columns of free text.
    words
        The vocabulary of each of those columns.
    """

    numbers: Array
    center: Array
    scale: Array
    fill: Array
    texts: Array
    categories: Sequence[Sequence[str]] = ()
    free: Sequence[int] = ()
    words: Sequence[Words] = ()

    @property
    def features(self) -> int:
        """Number of features: one for each numeric column, for each category and for each word."""
        return len(self.numbers) + sum(map(len, self.categories)) + sum(len(words.words) for words in self.words)

    def describe(self, raw: RawTable) -> list[dict[str, Any]]:
        """Return what makes the features of each column of the table, as JSON in the order of the features."""
        numbers = [
            {
                "name": raw.number_names[place],
                "kind": "number",
                "mean": float(center),
                "deviation": float(scale),
                "median": float(fill),
                **raw.made.get(raw.number_names[place], {}),
            }
            for place, center, scale, fill in zip(self.numbers, self.center, self.scale, self.fill, strict=True)
        ]
        texts = [
            {"name": raw.text_names[place], "kind": "category", "categories": list(categories)}
            for place, categories in zip(self.texts, self.categories, strict=True)
        ]
        free = [
            {"name": raw.text_names[place], "kind": "text", "words": list(words.words), "weights": list(words.weights)}
            for place, words in zip(self.free, self.words, strict=True)
        ]
        return [*numbers, *texts, *free]

    def transform(self, raw: RawTable) -> Array:
        """Return the features of these rows: float32, shape (N, features).

        A category that is not in the training part is zero in all features of its column, with a warning.
        """
        result = np.empty((len(raw), self.features), dtype=np.float32)
        width = len(self.numbers)
        for start in range(0, len(raw), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = raw.numbers[rows][:, self.numbers].astype(np.float64)
            block = np.where(np.isnan(block), self.fill, block)
            with np.errstate(over="ignore"):
                result[rows, :width] = (block - self.center) / self.scale
        self._refuse_overflow(raw, result)
        result[:, width:] = 0
        texts = _filled(raw.texts)
        for place, categories in zip(self.texts, self.categories, strict=True):
            codes = {category: width + code for code, category in enumerate(categories)}
            numbers = [codes.get(cell) for cell in texts[:, place]]
            known_rows = [row for row, code in enumerate(numbers) if code is not None]
            result[known_rows, [code for code in numbers if code is not None]] = 1
            if len(known_rows) < len(raw):
                self._warn_unknown(raw, int(place), numbers)
            width += len(categories)
        for place, vocabulary in zip(self.free, self.words, strict=True):
            many = len(vocabulary.words)
            for start in range(0, len(raw), _BLOCK):
                rows = slice(start, start + _BLOCK)
                result[rows, width : width + many] = word_weights(*vocabulary, raw.texts[rows, place].tolist())
            width += many
        return result

    def _refuse_overflow(self, raw: RawTable, result: Array) -> None:
        rows, places = np.nonzero(~np.isfinite(result[:, : len(self.numbers)]))
        if len(rows):
            name = raw.number_names[self.numbers[places[0]]]
            raw.refuse(
                name,
                "has a value that is too far from the others to be standardized: "
                f"{raw.at(int(rows[0]), name)}. Correct it, or {raw.leave_out(name)}",
            )

    @staticmethod
    def _warn_unknown(raw: RawTable, place: int, codes: list[int | None]) -> None:
        new = [row for row, code in enumerate(codes) if code is None]
        cell = raw.texts[new[0], place]
        warn(
            f"{raw.file}: column {raw.text_names[place]!r} holds categories that the training part lacks, in "
            f"{len(new)} of the {len(raw)} held-out rows, for instance "
            f"{shown(MISSING if cell is None else cell)}; they count as none."
        )


def fit(raw: RawTable, *, fills: bool = False, vocabulary: int = 500) -> Encoder:
    """Fit an encoder to the rows of the training part; a constant column is left out, with a warning.

    Parameters
    ----------
    raw
        The rows of the training part.
    fills
        Whether the encoder is to fill missing values in columns, too, that have none in these rows.
    vocabulary
        How many words of a column of free text become features at most: the most frequent ones.

    Raises
    ------
    UsageError
        If no column is left, or if numbers are too large to be standardized.
    """
    center, scale, fill, constant = _moments(raw)
    if fills:
        fill = _medians(raw.numbers)
    texts = _filled(raw.texts)
    alike = np.array([len(set(texts[:, place])) == 1 for place in range(texts.shape[1])], dtype=bool)
    dull = [name for name, same in zip(raw.number_names, constant, strict=True) if same]
    dull += [name for name, same in zip(raw.text_names, alike, strict=True) if same]
    if len(dull) == len(constant) + len(alike):
        raise UsageError(f"{raw.file}: every column beside the target is constant, so there is nothing to learn from.")
    if dull:
        is_single = len(dull) == 1
        warn(
            f"{raw.file}: {'the column' if is_single else f'{len(dull)} columns'} {listed(dull)} "
            f"{'has' if is_single else 'have'} one value in all {len(raw)} training rows and "
            f"{'is' if is_single else 'are'} left out."
        )
    varied, told = np.flatnonzero(~constant), np.flatnonzero(~alike)
    free = [place for place in told.tolist() if raw.text_names[place] in raw.free]
    told = np.array([place for place in told.tolist() if place not in free], dtype=np.int64)
    categories = [sorted(set(texts[:, place])) for place in told]
    words = [_words(raw, place, vocabulary) for place in free]
    return Encoder(varied, center[varied], scale[varied], fill[varied], told, categories, free, words)


def _words(raw: RawTable, place: int, most: int) -> Words:
    """Return the most frequent words of a column of free text that at least two rows have."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second

    vectorizer = TfidfVectorizer(max_features=most, min_df=2)
    try:
        vectorizer.fit([cell or "" for cell in raw.texts[:, place]])
    except ValueError:
        name = raw.text_names[place]
        raise UsageError(
            f"{raw.file}: column {name!r} is taken as text, and no word of two letters or more is in two of its "
            f"training rows; {raw.leave_out(name)}."
        ) from None
    return Words(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_.tolist())


def _moments(raw: RawTable) -> tuple[Array, Array, Array, Array]:
    """Return mean, standard deviation and median of each column, and whether it is constant: shapes (F,)."""
    width = raw.numbers.shape[1]
    center, scale, fill = np.zeros(width), np.zeros(width), np.zeros(width)
    constant = np.ones(width, dtype=bool)
    left: list[int] = []
    for start in range(0, width, _COLUMNS):
        places = slice(start, start + _COLUMNS)
        block = np.ascontiguousarray(raw.numbers[:, places].T, dtype=np.float64)  # each column lies in one piece
        with np.errstate(over="ignore", invalid="ignore"):
            center[places], scale[places] = block.mean(axis=1), block.std(axis=1)
        constant[places] = (block.min(axis=1) == block.max(axis=1)) | (scale[places] == 0)
        left += (start + np.flatnonzero(~np.isfinite(scale[places]))).tolist()  # with gaps, or too large
    for place in left:
        center[place], scale[place], constant[place] = 0, 0, True
        column = raw.numbers[:, place].astype(np.float64)
        gaps = np.isnan(column)
        if gaps.all():
            continue
        if gaps.any():
            fill[place] = np.median(column[~gaps])
            column[gaps] = fill[place]
        with np.errstate(over="ignore", invalid="ignore"):
            center[place], scale[place] = column.mean(), column.std()
        if not np.isfinite(scale[place]):
            name = raw.number_names[place]
            largest = int(np.abs(column).argmax())
            raw.refuse(
                name,
                f"has numbers that are too large to be standardized: {raw.at(largest, name)}. Give it "
                f"in another unit, or {raw.leave_out(name)}",
            )
        constant[place] = column.min() == column.max() or scale[place] == 0
    return center, scale, fill, constant


def _medians(numbers: Array) -> Array:
    """Return the median of the values of each column, 0 where it has none: float64, shape (F,)."""
    medians = np.zeros(numbers.shape[1])
    for place, column in enumerate(numbers.T.astype(np.float64)):
        present = column[~np.isnan(column)]
        medians[place] = np.median(present) if len(present) else 0
    return medians


def _filled(texts: Array) -> Array:
    return np.where(absent(texts), MISSING, texts)
