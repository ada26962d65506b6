"""Install the solver of this example with pip, and compute the points that its runs are measured on.

Cantera (19 MB) goes where this Python installs packages. Then 200 points of the space are solved, in some ten seconds,
and written to data/held_out.csv; mixtures that don't ignite are left out.

Usage: python examples/ignition/prepare.py
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tomllib
from pathlib import Path

from alcore_space import space

HERE = Path(__file__).resolve().parent
POINTS, SEED = 200, 2026  # a seed that no run of the example has


def install() -> None:
    """Install what requirements.txt names; pip does nothing if it is there."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if subprocess.run([*command, "--requirement", HERE / "requirements.txt"], check=False).returncode:
        sys.exit("prepare.py: pip could not install Cantera, for the reason above; nothing was written.")


def solve(file: Path) -> None:
    """Write points of the space with their ignition delays."""
    from ignition import NoIgnitionError, log10_delay

    table = tomllib.loads((HERE / "ignition.toml").read_text(encoding="utf-8"))["data"]["space"]
    shown = space(table["variables"], seed=SEED).train.shown(range(POINTS))
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*shown, *table["targets"]])
        solved = 0
        for values in zip(*shown.values(), strict=True):
            try:
                writer.writerow([*values, log10_delay(dict(zip(shown, values, strict=True)))])
                solved += 1
            except NoIgnitionError:
                continue
    print(f"{file}: {solved} of {POINTS} points ignite")


def main() -> None:
    install()
    solve(HERE / "data" / "held_out.csv")


if __name__ == "__main__":
    main()
