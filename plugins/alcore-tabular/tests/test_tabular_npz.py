"""NPZ files: plain arrays are read, and nothing is ever unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from alcore_tabular import table

from alcore.errors import UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 2


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "t.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (Y, ("0", "1")),
        (Y[:, None], ("0", "1")),
        (Y.astype(bool), ("False", "True")),
        (Y.astype(np.float32), ("0", "1")),
        (np.array(["no", "yes"])[Y], ("no", "yes")),
        (np.array(["né".encode(), b"yes"])[Y], ("né", "yes")),
    ],
    ids=["int", "column", "bool", "float", "text", "bytes"],
)
def test_targets_of_any_plain_type(save, y, names) -> None:
    data = table(save(X=X, y=y))
    assert data.info.names == names
    codes = sorted(data.train.answer(place)[1].item() for place in range(data.train.total))
    assert codes == [0] * 15 + [1] * 15


def test_images_are_flattened_and_standardized(save) -> None:
    images = RNG.integers(0, 256, size=(40, 2, 4), dtype=np.uint8)
    data = table(save(pixels=images, label=np.arange(40) / 7), inputs="pixels", target="label")
    rows = [round(data.train.answer(place)[1].item() * 7) for place in range(data.train.total)]
    flat = images.reshape(40, 8).astype(np.float64)
    expected = (flat[rows] - flat[rows].mean(axis=0)) / flat[rows].std(axis=0)
    np.testing.assert_allclose(data.train.inputs(torch.arange(30)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_large_offset_costs_no_precision(save) -> None:
    data = table(save(X=1_700_000_000 + np.arange(40)[:, None] ** 2, y=Y))
    assert len(torch.unique(data.train.inputs(torch.arange(30)))) == 30


def refusal(path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        table(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["X", "y"])
def test_pickles_are_refused_without_being_run(save, tmp_path, name) -> None:
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    arrays = {"X": X, "y": Y, name: np.array([Bomb()] * 40, dtype=object)}
    message = refusal(save(**arrays))
    assert f"array {name!r} can't be read" in message
    assert "never opened" in message
    assert not (tmp_path / "run").exists()


def test_a_raw_pickle_in_the_archive_is_refused(tmp_path) -> None:
    path = tmp_path / "t.npz"
    buffer = io.BytesIO()
    np.save(buffer, X)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", buffer.getvalue())
        archive.writestr("y.npy", pickle.dumps([0, 1] * 20))
    assert "'y' is not an array" in refusal(path)


@pytest.mark.parametrize(
    ("arrays", "options", "fragments"),
    [
        ({"X": X, "y": Y}, {"target": "labels"}, ["no array 'labels'", "--set data.csv.target=ARRAY"]),
        ({"x": X, "y": Y}, {}, ["no array 'X'", "did you mean 'x'", "data.csv.inputs"]),
        ({"X": X, "y": Y[:30]}, {}, ["40 rows in 'X' but 30 in 'y'"]),
        ({"X": X, "y": np.eye(2)[Y]}, {}, ["shape (40, 2)", "argmax"]),
        ({"X": X.astype(str), "y": Y}, {}, ["text where numbers belong", "CSV"]),
        ({"X": X.astype(complex), "y": Y}, {}, ["complex128"]),
        ({"X": np.zeros((40, 0)), "y": Y}, {}, ["shape (40, 0)"]),
        ({"X": np.float64(1), "y": Y}, {}, ["shape ()"]),
        ({"X": X, "y": Y.astype("datetime64[s]")}, {}, ["datetime64"]),
        ({"X": X, "y": np.array([b"\xff", b"a"])[Y]}, {}, ["not UTF-8"]),
        (
            {"X": np.where(np.arange(120).reshape(40, 3) == 7, np.nan, X), "y": Y},
            {},
            ["'X[:, 1]'", "row 2,", "missing"],
        ),
        (
            {"X": np.where(np.arange(120).reshape(40, 3) == 7, np.inf, X), "y": Y},
            {},
            ["'X[:, 1]'", "row 2,", "infinite"],
        ),
        (
            {"X": X, "y": np.where(Y, Y, np.nan)},
            {"missing": "fill"},
            ["'y' is the target", "20 of its 40 rows"],
        ),
        ({"X": X, "y": Y}, {"inputs": "y"}, ["two arrays"]),
        ({"X": X, "y": Y}, {"drop": ("a",)}, ["drop: "]),
        ({"X": X, "y": Y}, {"decimal": ","}, ["decimal: "]),
        ({"X": X, "y": Y}, {"blanks": ()}, ["blanks: "]),
    ],
)
def test_refusals_say_what_and_where(save, arrays, options, fragments) -> None:
    message = refusal(save(**arrays), **options)
    for fragment in fragments:
        assert fragment in message


def test_damaged_files_are_refused(save) -> None:
    path = save(X=X, y=Y)
    whole = path.read_bytes()
    path.write_bytes(b"nothing of the kind")
    assert "not an NPZ file" in refusal(path)
    path.write_bytes(whole[:300])
    assert "not an NPZ file" in refusal(path)
    middle = whole.index(X.tobytes()[:16])
    path.write_bytes(whole[:middle] + b"\1" * 16 + whole[middle + 16 :])
    assert "array 'X' can't be read: Bad CRC" in refusal(path)
    np.save(path.with_suffix(".npy"), X)
    path.with_suffix(".npy").replace(path)
    assert "not an NPZ file" in refusal(path)
