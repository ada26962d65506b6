"""Texts with the ratings of people, as TF-IDF, for ``alcore run texts.toml``.

`data` is named in the experiment file, as ``texts:data``. ``prepare.py`` fetches the texts.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from alcore import Data, DataInfo, TensorPool, UsageError

FOLDER = Path(__file__).resolve().parent / "data"


def read(path: Path) -> tuple[list[str], list[list[int]]]:
    """Return texts and their ratings; texts that people find neither positive nor negative on average are left out."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}; `python {path.parents[1] / 'prepare.py'}` fetches it with pip.")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row["text"], [int(rating) for rating in row["ratings"].split()]) for row in csv.DictReader(stream)]
    kept = [(text, ratings) for text, ratings in rows if sum(ratings)]
    return [text for text, _ in kept], [ratings for _, ratings in kept]


def data(
    collection: Literal["films", "products", "editorials", "tweets"] = "films",
    label: Literal["mean", "one"] = "mean",
    initial: int = 50,
    validation: float = 0.25,
    words: int = 1000,
    folder: Path = FOLDER,
    seed: int | None = None,
) -> Data:
    """Make a pool of texts to choose from, and one to measure on; the classes are negative and positive.

    Parameters
    ----------
    collection
        Where the texts are from.
    label
        What a label is: the sign of the mean of all ratings (``mean``), or that of one person's rating, drawn at random
        from those that aren't 0 (``one``). Texts that are held out have the sign of the mean in both cases.
    initial
        How many texts are labeled at the start, drawn at random.
    validation
        Share of the texts that is held out.
    words
        How many words and pairs of words become features: the most frequent ones of the pool, labeled or not.
    folder
        Where the files of ``prepare.py`` are.
    seed
        Seed of the split, the first labels and the drawn ratings; that of the run if it is not given.
    """
    texts, ratings = read(folder / f"{collection}.csv")
    generator = np.random.default_rng(seed or 0)
    order = generator.permutation(len(texts))
    held, pool = np.split(order, [round(validation * len(texts))])
    signs = np.array([int(sum(ratings_of_text) > 0) for ratings_of_text in ratings])
    drawn = np.array(
        [int(generator.choice([rating for rating in ratings_of_text if rating]) > 0) for ratings_of_text in ratings]
    )
    vectorizer = TfidfVectorizer(max_features=words, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    inputs = torch.from_numpy(vectorizer.fit_transform([texts[place] for place in pool]).toarray())
    unseen = torch.from_numpy(vectorizer.transform([texts[place] for place in held]).toarray())
    targets = torch.tensor((signs if label == "mean" else drawn)[pool])
    info = DataInfo("classification", 2, features=inputs.shape[1], names=("negative", "positive"))
    return Data(
        TensorPool(inputs, targets, labeled=range(initial), info=info),
        TensorPool(unseen, torch.tensor(signs[held]), labeled=range(len(held)), info=info),
        info=info,
    )
