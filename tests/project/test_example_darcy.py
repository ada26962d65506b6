"""The example with Darcy flow by scikit-fem: its solver, its network for images, what prepare.py writes, runs on it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.examples import EXAMPLES, prepared, run_example, script

from alcore import DataInfo
from alcore.store import Run

FOLDER = EXAMPLES / "darcy"
HELD_OUT = FOLDER / "data" / "held_out.npz"
LEVEL = {"a10": 0.0, "a01": 0.0, "a11": 0.0, "a20": 0.0, "a02": 0.0, "contrast": 2.0}


@pytest.fixture
def darcy() -> ModuleType:
    prepared(HELD_OUT)
    return script(FOLDER / "darcy.py")


@pytest.mark.parametrize("mesh", [1, 2, 3])
def test_pressure_falls_evenly_where_permeability_is_the_same(darcy: ModuleType, mesh: int) -> None:
    image = darcy.pressure({**LEVEL, "mesh": mesh})
    np.testing.assert_allclose(image, np.broadcast_to(np.linspace(1, 0, 17), (17, 17)), atol=1e-12)


@pytest.mark.parametrize("along", ["a10", "a20"])
def test_pressure_of_layers_is_the_integral_of_their_resistance(darcy: ModuleType, along: str) -> None:
    point = {**LEVEL, along: 0.5}
    x = np.linspace(0, 1, 16 * 1000 + 1)
    resistance = np.exp(-2.0 * 0.5 * np.cos(np.pi * x * int(along[1])))
    passed = np.concatenate([[0], np.cumsum((resistance[1:] + resistance[:-1]) / 2)])
    expected = 1 - passed[::1000] / passed[-1]
    image = darcy.pressure(point)
    np.testing.assert_allclose(image, np.broadcast_to(expected, (17, 17)), atol=1e-3)
    errors = [np.abs(darcy.pressure({**point, "mesh": mesh})[0] - expected).max() for mesh in (1, 2, 3)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_waves_across_and_rows_from_below(darcy: ModuleType) -> None:
    image = darcy.pressure({**LEVEL, "a01": 1.0, "a10": 0.3})
    flipped = darcy.pressure({**LEVEL, "a01": -1.0, "a10": 0.3})
    np.testing.assert_allclose(image, flipped[::-1], atol=1e-12)
    corner = darcy.pressure({**LEVEL, "a11": 0.8})  # more permeable at the lower left: pressure reaches farther there
    assert corner[0, 4] > corner[-1, 4]


def test_network_returns_samples_of_images_in_their_unit(darcy: ModuleType) -> None:
    torch.manual_seed(0)
    network = darcy.Pressure(DataInfo("regression", 0, 6, (6,), target_shape=(17, 17)), members=3)
    inputs, images = torch.rand(12, 6), 5 + 0.01 * torch.randn(12, 17, 17)
    network.begin_training([(inputs[:8], images[:8]), (inputs[8:], images[8:])])
    outputs = network(inputs)
    assert outputs.shape == (3, 12, 289)
    assert float((outputs - 5).detach().abs().max()) < 0.1
    by_hand = ((outputs - images.flatten(1)) / network.scale).square().mean(dim=(1, 2)).sum()
    torch.testing.assert_close(network.training_step((inputs, images)), by_hand, rtol=1e-3, atol=1e-3)


def test_images_to_measure_on_are_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, darcy: ModuleType) -> None:
    prepare = script(FOLDER / "prepare.py")
    monkeypatch.setattr(prepare, "POINTS", 3)
    monkeypatch.syspath_prepend(str(FOLDER))
    prepare.solve(tmp_path / "data" / "few.npz")
    with np.load(tmp_path / "data" / "few.npz") as few, np.load(HELD_OUT) as whole:
        for name in whole.files:
            np.testing.assert_array_equal(few[name], whole[name][:3])
        point = {name: float(few[name][2]) for name in few.files if name != "pressure"}
        np.testing.assert_allclose(few["pressure"][2], darcy.pressure(point))


def test_a_few_steps_on_images_and_their_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, darcy: ModuleType
) -> None:
    words = ("--steps", "2", "--metrology", "fields", "--set", "training.max_training_epochs=60")
    records = run_example(FOLDER, "darcy.toml", "--allow-code", *words, root=tmp_path)
    assert [record["train_samples"] for record in records] == [20, 30]
    assert all(record["on"] == "validation" and record["samples"] == 200 for record in records)
    assert records[-1]["relative_l2"] < records[0]["relative_l2"] < 0.3
    monkeypatch.syspath_prepend(str(FOLDER))
    picture = script(FOLDER / "picture.py")
    rows = picture.rows_of(tmp_path / "example")
    assert [len(images) for images in rows.values()] == [len(picture.COLUMNS)] * 3
    for _, image, values, error, std in rows.values():
        np.testing.assert_allclose(values - image, error)
        assert np.linalg.norm(error) < 0.5 * np.linalg.norm(image)
        assert (std >= 0).all()
        assert std.max() > 0
    picture.draw(rows, tmp_path / "fields.png")
    assert (tmp_path / "fields.png").read_bytes().startswith(b"\x89PNG")
    del darcy


def test_labels_of_coarse_meshes_cost_a_quarter_and_are_asked_for_more(tmp_path: Path) -> None:
    prepared(HELD_OUT)
    words = ("--steps", "2", "--metrology", "fields", "--set", "training.max_training_epochs=30")
    run_example(FOLDER, "fidelity.toml", "--allow-code", "--query", "max-variance", *words, root=tmp_path)
    asked = Run(tmp_path / "example").requests(1)
    meshes = [json.loads(row["fidelity"]) for row in asked]
    assert len(asked) == 30
    assert [row["cost"] for row in asked] == [4.0 ** (mesh - 3) for mesh in meshes]
    assert meshes.count(1) > meshes.count(2) >= meshes.count(3)
