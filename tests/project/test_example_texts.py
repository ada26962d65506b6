"""The example with texts that people rated: what prepare.py writes, which labels it makes, and a run on it."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.examples import EXAMPLES, prepared, run_example, script

from alcore import TensorPool, UsageError

FOLDER = EXAMPLES / "texts"


@pytest.fixture
def prepare() -> ModuleType:
    return script(FOLDER / "prepare.py")


@pytest.fixture
def texts() -> ModuleType:
    pytest.importorskip("sklearn")
    return script(FOLDER / "texts.py")


def pack(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_texts_are_written_with_their_ratings(prepare: ModuleType, tmp_path: Path) -> None:
    inner = {}
    for file in prepare.COLLECTIONS.values():
        truth = '1_1\t0.5\tSo, a "good" one\r\n1_2\t-2\tBad\r\n1_3\t1.25\tits mean is another\r\n'
        ratings = "1_1\t0.5\t0.5\t[1, 0]\r\n1_2\t-2\t0\t[-2, -2]\r\n1_3\t2\t0\t[2, 2]\r\n"
        inner[f"hutto_ICWSM_2014/{file}_GroundTruth.txt"] = b"\xef\xbb\xbf" + truth.encode()
        inner[f"hutto_ICWSM_2014/{file}_anonDataRatings.txt"] = b"\xef\xbb\xbf" + ratings.encode()
    pack(tmp_path / "inner.tar.gz", inner)
    pack(tmp_path / "source.tar.gz", {"x/hutto_ICWSM_2014.tar.gz": (tmp_path / "inner.tar.gz").read_bytes()})
    prepare.write_texts(tmp_path / "source.tar.gz", tmp_path / "data")
    for name in prepare.COLLECTIONS:
        with (tmp_path / "data" / f"{name}.csv").open(newline="") as stream:
            assert list(csv.reader(stream)) == [["text", "ratings"], ['So, a "good" one', "1 0"], ["Bad", "-2 -2"]]


def write(folder: Path, rows: list[tuple[str, str]]) -> None:
    with (folder / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "ratings"), *rows])


def is_fine(pool: TensorPool) -> torch.Tensor:
    """Tell which texts have the second of all words and pairs, which are sorted: film, fine, fine film, ..."""
    inputs = pool.inputs(torch.arange(pool.total))
    assert inputs.dtype == torch.float32
    assert (inputs[:, 0] > 0).all(), "every text has the word film"
    return inputs[:, 1] > 0


def signs(pool: TensorPool) -> torch.Tensor:
    return torch.stack([torch.as_tensor(pool.answer(sample)[1]) for sample in range(pool.total)]) == 1


def test_labels_are_signs_of_the_mean_or_of_one_rating(texts: ModuleType, tmp_path: Path) -> None:
    # two of three people disagree with the mean's sign here, so that a drawn rating tells which label is made
    write(tmp_path, [("fine film", "4 -1 -1"), ("poor film", "-4 1 1")] * 100 + [("so so film", "1 -1")])
    made = {label: texts.data(label=label, initial=10, folder=tmp_path, seed=3) for label in ("mean", "one")}
    for label, data in made.items():
        assert (len(data.train), data.train.total, len(data.val)) == (10, 150, 50), (
            "the text without a sign is left out"
        )
        fine = is_fine(data.train)
        share = (signs(data.train) == fine).double().mean()
        assert share == 1 if label == "mean" else 0.2 < share < 0.5, "one in three people has the sign of the mean"
        assert (signs(data.val) == is_fine(data.val)).all(), "texts that are held out have the sign of the mean"
    again = texts.data(label="one", initial=10, folder=tmp_path, seed=3)
    assert again.train.digest() == made["one"].train.digest()


def test_missing_texts_are_told_with_the_command_that_fetches_them(texts: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*films\.csv.*prepare\.py"):
        texts.data(folder=tmp_path / "data")


def test_a_few_steps_on_films(tmp_path: Path) -> None:
    prepared(FOLDER / "data" / "films.csv")
    records = run_example(FOLDER, "texts.toml", "--allow-code", "--steps", "2", root=tmp_path)
    assert [record["train_samples"] for record in records] == [50, 70, 90]
    assert all(record["samples"] == 2114 and 0.45 < record["accuracy"] < 0.7 for record in records)
