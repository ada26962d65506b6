"""Columns of free text: the words of the training part become features."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from alcore_tabular import table
from alcore_tabular.standalone import word_weights
from sklearn.feature_extraction.text import TfidfVectorizer

from alcore.errors import UsageError

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "Éric", "und", "42", "times"]


@pytest.fixture
def noted(rows, write):
    """The table with a column of free text, and its texts."""
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=6)) + "." for _ in rows[1:]]
    for place, (row, text) in enumerate(zip(rows, ["note", *texts], strict=True)):
        row[:0] = [text, f"only{place}" if place else "id"]
    return write(rows)


def test_weights_are_those_of_scikit_learn() -> None:
    texts = ["The quick fox", "fox, fox: dog!", "", "a lazy über-dog the", "nothing known"]
    vectorizer = TfidfVectorizer().fit(texts[:4])
    weights = word_weights(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_.tolist(), [*texts, None])
    np.testing.assert_allclose(weights[:5], vectorizer.transform(texts).toarray(), atol=1e-7)
    assert not weights[5].any()


def test_free_text_is_refused_with_the_flag_that_takes_its_words(noted) -> None:
    with pytest.raises(UsageError, match=r"'note' has text.*TF-IDF\) with --set 'data.csv.texts=\[\"note\"\]'"):
        table(noted, target="bought", drop=("id",))


def test_words_of_the_training_part_become_features_and_a_new_file_gets_the_same(noted) -> None:
    data = table(noted, target="bought", texts=("note",), vocabulary=5, drop=("id",))
    assert data.info.features == 1 + 3 + 5
    (column,) = [column for column in data.preprocessing.describe()["columns"] if column["kind"] == "text"]
    train = TfidfVectorizer(max_features=5, min_df=2).fit(list(data.train.columns["note"]))
    assert column["words"] == train.get_feature_names_out().tolist()
    held = data.val.inputs(torch.arange(data.val.total))[:, -5:].numpy()
    np.testing.assert_allclose(held, train.transform(list(data.val.columns["note"])).toarray(), atol=1e-6)
    again = table.preprocessing_from(json.loads(json.dumps(data.preprocessing.describe())))
    assert torch.equal(again.read(noted)[data.train.source_rows], data.train.inputs(torch.arange(data.train.total)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"texts": ("nota",)}, "no column 'nota' to take as texts; did you mean 'note'"),
        ({"texts": ("note",), "categories": ("note",)}, "data.csv.categories and data.csv.texts"),
        ({"texts": "note"}, "not a list"),
        ({"texts": ("note",), "vocabulary": 0}, "vocabulary: 0"),
        ({"texts": ("note", "id")}, "'id' is taken as text, and no word"),
    ],
)
def test_impossible_texts_are_refused(noted, options, words) -> None:
    with pytest.raises(UsageError, match=words):
        table(noted, target="bought", **options)
