"""Tables in plain text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alcore.commands.tables import curve, losses, some, table


def test_table_aligns_numbers_right_and_words_left():
    assert table([["a", 1, 0.5], ["bcd", 10, None]], ["name", "n", "score"]) == (
        "name   n   score\n"
        "a      1  0.5000\n"
        "bcd   10       -"
    )  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(["x", "yy", "zzz", "-5"]), min_size=3, max_size=3), max_size=6))
def test_table_has_every_cell_in_order(rows):
    header = ["one", "three", "n"]
    lines = table(rows, header).splitlines()
    assert [line.split() for line in lines] == [header, *rows]


@given(st.integers(0, 500), st.integers(2, 40))
def test_some_keeps_both_ends_and_the_order(size, most):
    items = list(range(size))
    chosen = some(items, most)
    assert len(chosen) == min(size, most)
    assert chosen == sorted(set(chosen))
    assert chosen[:1] + chosen[-1:] == items[:1] + items[-1:]


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ("pool", "f1, measured on all points of the pool, labeled or not"),
        ("validation", "f1, measured on the held-out validation pool"),
        ("train", "f1, measured on the training set itself"),
        ("other", "f1, measured on other"),
        (None, "f1"),
    ],
)
def test_curve_shows_fractions_and_what_they_were_measured_on(on, words):
    record = {"step": 0, "train_samples": 5, "on": on, "f1": 0.25, "samples": 9, "positive": "1"}
    title, *lines = curve(
        {"f1": [{name: value for name, value in record.items() if value is not None}]}, 5, ""
    ).splitlines()
    assert title == words
    assert lines == ["step  samples      f1", "   0        5  0.2500"]


def test_losses_are_shown_where_nothing_is_measured():
    steps = [{"step": 0, "train_samples": 5, "losses": {"loss": 0.5}}, {"step": 1, "train_samples": 6}]
    assert losses(steps, 5, "").splitlines()[1:] == ["   0        5  0.5000", "   1        6       -"]


@pytest.mark.parametrize("count", [1, 8, 9, 30])
def test_table_that_leaves_out_rows_says_how_many_and_what_has_them(count):
    entries = [{"step": step, "train_samples": step, "f1": 0.5, "losses": {"loss": 0.5}} for step in range(count)]
    for text, above in (
        (curve({"f1": entries}, 8, "alcore show r --all"), 2),
        (losses(entries, 8, "alcore show r --all"), 1),
    ):
        rows = text.splitlines()[above:]
        last = f"... {count - 8} of {count} rows are left out; alcore show r --all has them all."
        assert rows[-1:] == [last] if count > 8 else len(rows) == count
        assert len(rows) == min(count, 8) + (count > 8)
