"""Install the solver of this example with pip, and compute the images that its runs are measured on.

scikit-fem (0.2 MB) goes where this Python installs packages. Then 200 points of the space are solved on the finest
mesh, in some seconds, and written to data/held_out.npz.

Usage: python examples/darcy/prepare.py
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from alcore_space import space

HERE = Path(__file__).resolve().parent
POINTS, SEED = 200, 2026  # a seed that no run of the example has


def install() -> None:
    """Install what requirements.txt names; pip does nothing if it is there."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if subprocess.run([*command, "--requirement", HERE / "requirements.txt"], check=False).returncode:
        sys.exit("prepare.py: pip could not install scikit-fem, for the reason above; nothing was written.")


def solve(file: Path) -> None:
    """Write points of the space with their images of the pressure."""
    from darcy import FINEST, pressure

    table = tomllib.loads((HERE / "darcy.toml").read_text(encoding="utf-8"))["data"]["space"]
    shown = space(table["variables"], seed=SEED).train.shown(range(POINTS))
    points = [dict(zip(shown, values, strict=True)) for values in zip(*shown.values(), strict=True)]
    images = np.stack([pressure(point) for point in points])
    file.parent.mkdir(exist_ok=True)
    np.savez(file, **shown, mesh=np.full(POINTS, FINEST), pressure=images)
    print(f"{file}: {POINTS} points")


def main() -> None:
    install()
    solve(HERE / "data" / "held_out.npz")


if __name__ == "__main__":
    main()
