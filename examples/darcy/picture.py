"""Draw held-out images of the pressure beside what a run predicts, its error, and how far off it says that it may be.

Usage: python picture.py RUN [FILE]      (RUN is the folder of a run of darcy.toml; fields.png if FILE is not given)
"""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from alcore_predict import predict

from alcore.store import Run

HERE = Path(__file__).resolve().parent
SHOWN = (10, 50, 90)  # percentiles of the contrast
COLUMNS = ("log k", "pressure", "predicted", "error", "standard deviation")


def log_k(point: dict[str, float]) -> np.ndarray:
    """Return the logarithm of the permeability on the grid of the image."""
    from darcy import IMAGE, WAVES

    y, x = np.meshgrid(np.linspace(0, 1, IMAGE), np.linspace(0, 1, IMAGE), indexing="ij")
    waves = {name: np.cos(math.pi * i * x) * np.cos(math.pi * j * y) for name, (i, j) in WAVES.items()}
    return point["contrast"] * sum(point[name] * wave for name, wave in waves.items())


def rows_of(folder: Path) -> dict[str, list[np.ndarray]]:
    """Return the images of each row of the picture, in the order of `COLUMNS`, by what is written beside it."""
    with np.load(HERE / "data" / "held_out.npz") as file:
        held = {name: file[name] for name in file.files if name != "mesh"}
    images = held.pop("pressure")
    order = np.argsort(held["contrast"])
    chosen = [int(order[percent * (len(order) - 1) // 100]) for percent in SHOWN]
    points = [{name: float(values[place]) for name, values in held.items()} for place in chosen]
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary) / "new.csv"
        with new.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(held))
            writer.writeheader()
            writer.writerows(points)
        made = predict(Run(folder), new, allow_code=True)
    assert made.std is not None
    values, std = (maps.reshape(-1, *images.shape[1:]) for maps in (made.values, made.std))
    return {
        f"contrast {point['contrast']:.2f}": [
            log_k(point),
            images[place],
            values[row],
            values[row] - images[place],
            std[row],
        ]
        for row, (place, point) in enumerate(zip(chosen, points, strict=True))
    }


def draw(rows: dict[str, list[np.ndarray]], path: Path) -> None:
    """Draw a picture with one scale for all images of a column, and one for both of the pressure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(len(rows), len(COLUMNS), figsize=(11, 6.2), layout="constrained")
    for column, title in enumerate(COLUMNS):
        largest = max(float(np.abs(row[column]).max()) for row in rows.values())
        scale: dict[str, Any] = {"vmin": -largest, "vmax": largest, "cmap": "RdBu_r"}
        if title in ("pressure", "predicted"):
            scale = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
        elif title == "standard deviation":
            scale = {"vmin": 0, "vmax": largest, "cmap": "cividis"}
        for row, images in enumerate(rows.values()):
            panel = panels[row][column]
            shown = panel.imshow(images[column], origin="lower", extent=(0, 1, 0, 1), **scale)
            panel.set_xticks([0, 1])
            panel.set_yticks([0, 1])
            panel.tick_params(labelsize=7)
        panels[0][column].set_title(title, fontsize=10)
        figure.colorbar(shown, ax=list(panels[:, column]), location="bottom", shrink=0.9).ax.tick_params(labelsize=7)
    for row, beside in enumerate(rows):
        panels[row][0].set_ylabel(beside, fontsize=9)
    figure.savefig(path, dpi=90)
    print(path)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("picture.py: name the folder of a run, such as active_learning_logs/8f1c02ab.")
    draw(rows_of(Path(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "fields.png")


if __name__ == "__main__":
    main()
