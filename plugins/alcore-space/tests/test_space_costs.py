"""What labels cost, and how exact they are to be: variables of the space."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from alcore_space import space
from alcore_space.refinement import _Neighborhood
from alcore_testing import run_command

from alcore.errors import UsageError

VARIABLES = {
    "x": {"low": 0.0, "high": 1.0},
    "mesh": {"type": "integer", "low": 1, "high": 4},
}


def test_cost_is_the_formula_at_the_point() -> None:
    pool = space(VARIABLES, cost="0.1 * 4**mesh + x", candidates=1000, seed=0).train
    ids = torch.tensor([0, 7, *pool.start_ids[:2]])
    shown = pool.shown(ids.tolist())
    expected = [0.1 * 4**mesh + x for mesh, x in zip(shown["mesh"], shown["x"], strict=True)]
    np.testing.assert_allclose(pool.costs_of(ids), expected)
    assert [pool.cost(sample) for sample in ids.tolist()] == pytest.approx(expected)


def test_without_a_formula_nothing_is_said() -> None:
    pool = space(VARIABLES, seed=0).train
    assert pool.cost(0) is pool.costs_of(torch.tensor([0])) is pool.fidelity(0) is None


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ("4**mash", "cost '4\\*\\*mash', column 4 at 'mash': there is no variable 'mash'"),
        ("mesh > 2", "cost 'mesh > 2', column 1: it compares, and has no value"),
        ("x - 0.5", "the cost 'x - 0.5' is -0.*at x = "),
        ("log(x - 2)", "is nan at x = "),
    ],
)
def test_formula_that_is_no_cost_is_refused(cost: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"data.space: .*{message}"):
        space(VARIABLES, cost=cost, seed=0)


@pytest.mark.parametrize(
    ("mesh", "top"),
    [
        (VARIABLES["mesh"], 4),
        ({"type": "category", "choices": ["coarse", "fine"]}, "fine"),
        ({"low": 0.5, "high": 2.5}, 2.5),
    ],
    ids=["integer", "category", "real"],
)
@pytest.mark.parametrize("finite", [False, True])
def test_points_to_measure_on_have_the_highest_fidelity(mesh: dict, top: object, finite: bool) -> None:
    x = {"type": "integer", "low": 0, "high": 30} if finite else VARIABLES["x"]
    pool = space({"x": x, "mesh": mesh}, fidelity="mesh", validation=6, initial=8, seed=0).train
    assert pool.shown(pool.start_ids[:6])["mesh"] == [top] * 6
    assert len(set(pool.shown(pool.start_ids[:6])["x"])) == 6
    assert len(set(map(str, pool.shown(pool.start_ids[6:])["mesh"]))) > 1
    assert pool.fidelity(pool.start_ids[0]) == top


@pytest.mark.parametrize(
    ("mesh", "columns"),
    [(VARIABLES["mesh"], [1.0]), ({"type": "category", "choices": ["coarse", "middle", "fine"]}, [0.0, 0.0, 1.0])],
    ids=["integer", "category"],
)
def test_inputs_at_the_highest_fidelity_differ_in_that_variable_alone(mesh: dict, columns: list[float]) -> None:
    pool = space({"mesh": mesh, "x": VARIABLES["x"]}, fidelity="mesh", candidates=100, initial=4, seed=0).train
    ids = torch.tensor([0, 1, 2, 3, *pool.start_ids])
    moved, own = pool.at_highest_fidelity(ids), pool.inputs(ids)
    assert moved[:, :-1].tolist() == [columns] * 8
    assert torch.equal(moved[:, -1], own[:, -1])
    assert not torch.equal(moved, own)
    assert space(VARIABLES, seed=0).train.at_highest_fidelity(ids[:1]) is None
    near = _Neighborhood(pool, [0, {"mesh": mesh.get("low", "coarse"), "x": 0.5}], 3, 0.1, torch.Generator())
    moved = near.at_highest_fidelity(near.unlabeled_indices())
    assert moved[:, :-1].tolist() == [columns] * len(moved)


def test_fidelity_that_is_no_variable_is_refused() -> None:
    with pytest.raises(UsageError, match="fidelity is 'mush', and it must be a variable: did you mean 'mesh'"):
        space(VARIABLES, fidelity="mush", seed=0)


def test_run_counts_costs_keeps_fidelities_and_chooses_by_score_per_cost(tmp_path, monkeypatch) -> None:
    (tmp_path / "solver.py").write_text("def solve(inputs):\n    return inputs['x'] ** 2 + 0.1 / inputs['mesh']\n")
    (tmp_path / "mesh.toml").write_text(
        "[data.space]\ncost = '4**mesh'\nfidelity = 'mesh'\nvalidation = 4\ninitial = 8\ncandidates_per_step = 500\n"
        "[data.space.variables.x]\nlow = 0\nhigh = 1\n"
        "[data.space.variables.mesh]\ntype = 'integer'\nlow = 1\nhigh = 4\n"
        "[driver]\nmax_active_learning_steps = 2\n[training]\nmax_training_epochs = 3\n"
        "[learner.mlp]\noutputs = 'mean-variance'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    meshes = {}
    for per_cost in ("true", "false"):
        done = run_command(
            tmp_path, "run", "mesh.toml", "--run-id", per_cost, "--query", "max-variance", "--label", "function",
            "--set", "label.function.function=solver:solve", "--set", f"driver.per_cost={per_cost}",
        )  # fmt: skip
        assert done.code == 0, done.err
        shown = json.loads(run_command(tmp_path, "show", per_cost, "--step", "1", "--json").out)
        meshes[per_cost] = [json.loads(request["fidelity"]) for request in shown["requests"]]
        assert [request["cost"] for request in shown["requests"]] == [4.0**mesh for mesh in meshes[per_cost]]
    assert sum(meshes["true"]) < sum(meshes["false"])
