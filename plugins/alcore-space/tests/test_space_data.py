"""The factory: what it suggests, what it refuses, points of files, and what predictions are made of."""

from __future__ import annotations

import inspect
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import alcore_space
import numpy as np
import pytest
import torch
from alcore_space import SpacePool, space
from alcore_space.constraints import FUNCTIONS

from alcore import UsageError

TABLES: dict[str, Any] = {"T": {"low": 900, "high": 1500, "unit": "K"}, "p": {"type": "log", "low": 1e5, "high": 4e6}}
FINITE: dict[str, Any] = {"n": {"type": "integer", "low": 0, "high": 9}, "m": {"type": "category", "choices": [16, 32]}}


def test_a_regression_begins_with_its_design_and_asks_people_where_nobody_says() -> None:
    data = space(TABLES)
    assert data.val is None
    assert (data.info.task, data.info.features, data.info.shape, data.info.target_shape) == ("regression", 2, (2,), ())
    assert data.parts == {"label": ["ask"], "start": ["design"]}
    assert len(data.train.start_ids) == 10
    assert data.train.total == 10**9 + 10
    assert data.defaults["driver"]["max_active_learning_steps"] == 11


def test_without_a_design_another_start_is_needed() -> None:
    assert space(TABLES, initial=0).parts == {"label": ["ask"]}


def test_several_targets_and_fields_have_the_shape_of_a_label() -> None:
    assert space(TABLES, targets=("a", "b")).info.target_shape == (2,)
    assert space(TABLES, shape=(4, 5)).info.target_shape == (4, 5)
    assert space(TABLES, targets=("a", "b"), shape=(4,)).info.target_shape == (2, 4)
    info = space(TABLES, classes=("slow", "fast")).info
    assert (info.task, info.classes, info.names) == ("classification", 2, ("slow", "fast"))


def test_units_are_those_of_the_variables_that_have_one() -> None:
    tables = {"T": {"low": 900, "high": 1500, "unit": "K"}, "phi": {"low": 0.5, "high": 2.0}}
    assert space(tables).train.units == {"T": "K"}


def test_a_finite_space_has_each_point_once_and_its_start_among_them() -> None:
    pool = space(FINITE, initial=6, validation=4, design="latin-hypercube").train
    assert pool.total == 20
    assert len(set(pool.start_ids)) == 10
    assert set(pool.start_ids) <= set(range(20))
    shown = pool.shown(range(20))
    assert len(set(zip(shown["n"], shown["m"], strict=True))) == 20
    assert len(space(FINITE).train.start_ids) == 10
    held = space(FINITE, initial=6, validation=4, design="latin-hypercube", constraints=("n > 1",)).train
    assert min(held.shown(held.start_ids)["n"]) > 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidates": 0}, "candidates is 0; it must be at least 1 and at most 1,073,741,824"),
        ({"candidates": 2**31}, "candidates is 2147483648"),
        ({"candidates_per_step": 0}, "candidates_per_step is 0"),
        ({"initial": -1}, "initial is -1"),
        ({"validation": -1}, "validation is -1"),
        ({"initial": 0, "validation": 5}, "the 5 points of validation are asked for with the start design"),
        ({"targets": ()}, "names at least one target"),
        ({"targets": ("a", "a")}, "each once"),
        ({"targets": ("T",)}, "T is the name of a variable and of a target"),
        ({"shape": (0,)}, "axes have a length of at least 1"),
        ({"classes": ("a",)}, "names two classes at least"),
        ({"classes": ("a", "b"), "targets": ("x", "y")}, "a classification has one target"),
        ({"design": "lhs"}, "latin-hypercube"),
        ({"variables": FINITE, "initial": 21}, "the start needs 21 points.*20 points.*which is all"),
        ({"constraints": ("x < 1",)}, "data.space: constraint 'x < 1', column 1 at 'x': there is no variable 'x'"),
        ({"variables": alcore_space.Space(TABLES), "constraints": ("T < 1",)}, "give them to it"),
        ({"validation": Path("no.csv")}, "no.csv can't be read: No such file"),
        ({"validation": Path("no.csv"), "shape": (3,)}, "a field doesn't fit in the cells of a CSV file; give an NPZ"),
    ],
)
def test_what_can_t_be_used_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space(**{"variables": TABLES, **given})


def test_a_space_without_points_is_told_after_bounded_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alcore_space.designs.MOST_TRIED", 2**16)
    with pytest.raises(UsageError) as error:
        space(TABLES, constraints=("T == 1000.5", "p > 1e5"))
    assert "none of 65,536 points of the space satisfies the constraints" in str(error.value)
    assert "'T == 1000.5' alone by 0%, 'p > 1e5' alone by 100% of them" in str(error.value)


# -- files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "points.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_points_to_measure_on_may_come_from_a_file(file: Any) -> None:
    path = file("y,p;T\n".replace(";", ",") + "1.5,1e5,900\n\n-2,4000000,1500\n")
    data = space(TABLES, validation=path, targets=("y",))
    assert len(data.val) == 2
    inputs, targets = data.val.batch(torch.arange(2))
    assert inputs.tolist() == [[0, 0], [1, 1]]
    assert targets.tolist() == [1.5, -2]
    assert len(data.train.start_ids) == 10
    path = file("T,p,a,b\n900,1e5,1,2\n")
    assert space(TABLES, validation=path, targets=("a", "b")).val.batch(torch.arange(1))[1].tolist() == [[1, 2]]
    path = file("T,p,y\n900,1e5,fast\n")
    assert int(space(TABLES, targets=("y",), validation=path, classes=("slow", "fast")).val[0][1]) == 1


GOOD = {"T": np.array([900.0, 1500.0]), "p": np.array([1e5, 4e6]), "y": np.arange(12.0).reshape(2, 2, 3)}


def test_fields_to_measure_on_come_from_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "held.npz", **GOOD, other=np.array(["not read"], dtype=object))
    inputs, targets = space(TABLES, targets=("y",), shape=(2, 3), validation=tmp_path / "held.npz").val.batch(
        torch.arange(2)
    )
    assert inputs.tolist() == [[0, 0], [1, 1]]
    assert targets.dtype == torch.float32
    np.testing.assert_array_equal(targets, GOOD["y"])
    np.savez(tmp_path / "held.npz", **GOOD, z=-GOOD["y"])
    both = space(TABLES, targets=("y", "z"), shape=(2, 3), validation=tmp_path / "held.npz").val[1][1]
    np.testing.assert_array_equal(both, np.stack([GOOD["y"][1], -GOOD["y"][1]]))
    np.savez(tmp_path / "held.npz", **{**GOOD, "y": np.arange(2)})
    assert space(TABLES, targets=("y",), validation=tmp_path / "held.npz").val[1][1] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"p": None}, "held.npz lacks the array 'p'; it needs one for each variable and target: T, p, y"),
        ({"y": np.zeros((2, 3))}, r"the array 'y' has the shape \(2, 3\), and it must be \(2, 2, 3\)"),
        ({"T": np.array(900.0)}, "the array 'T' has the shape .*with at least one point"),
        ({"T": np.array([900.0, 100.0])}, "point 1 .counted from 0. is none of the space: T: 100 is outside"),
        ({"y": np.full((2, 2, 3), np.nan)}, "the array 'y' must be of finite numbers"),
        ({"y": np.full((2, 2, 3), "a")}, "the array 'y' must be of finite numbers"),
        ({"T": np.array([900.0, None], dtype=object)}, "held.npz is not an NPZ file of numbers"),
    ],
)
def test_arrays_that_are_no_points_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    arrays = {name: one for name, one in {**GOOD, **changed}.items() if one is not None}
    np.savez(tmp_path / "held.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        space(TABLES, targets=("y",), shape=(2, 3), validation=tmp_path / "held.npz")


ONE_ARRAY = io.BytesIO()
np.save(ONE_ARRAY, np.zeros(3))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"text", ONE_ARRAY.getvalue()])
def test_a_file_that_has_no_arrays_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "held.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"can't be read: No such file|held.npz is not an NPZ file of numbers"):
        space(TABLES, targets=("y",), shape=(2, 3), validation=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("T,p\n900,1e5\n", "lacks the column 'y' with the target"),
        ("T,p,y\n800,1e5,1\n", "line 2 is no point of the space: T: 800 is outside of its bounds 900 to 1500 K"),
        ("T,p,y\n900,1e5,1\n\n1000,3e6,1\n", "line 4 is no point of the space: it breaks the constraint"),
        ("T,p,y\n900,1e5,?\n", "line 2: '\\?' is not a finite number"),
        ("T,p,y\n900,x,1\n", "line 2, column 'p': 'x' is not a finite number"),
        ("T,p,y\n900,-1,1\n", "line 2, column 'p': '-1' is not above 0"),
        ("T,p,y\n900,1e5\n", "has 2 cells in line 2, and the first line has 3"),
        ("T,q,y\n900,1e5,1\n", "has a column 'q', which is no variable of the space: T, p, y"),
        ("T,y\n900,1\n", "lacks the column 'p'"),
        ("T,p,p,y\n900,1,1,1\n", "has several columns 'p'"),
        ("a,b\n1,2\n", "has no column of a variable in its first line: T, p"),
        ("", "has no column of a variable"),
        ("T,p,y\n", "has no row below its header"),
    ],
)
def test_a_file_that_doesn_t_fit_is_refused_with_its_line(file: Any, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"points.csv,? {message}"):
        space(TABLES, validation=file(text), targets=("y",), constraints=("p < 2e6 or T > 1100",))


def test_inputs_of_a_file_are_those_of_the_pool(file: Any) -> None:
    tables = {**TABLES, **FINITE}
    data = space(tables)
    pool: SpacePool = data.train
    shown = pool.shown(range(20))
    rows = zip(*(map(repr, column) for column in shown.values()), strict=True)
    path = file("\t".join(shown) + "\n" + "\n".join("\t".join(row) for row in rows) + "\n")
    description = json.loads(json.dumps(data.preprocessing.describe()))
    again = space.preprocessing_from(description)  # type: ignore[attr-defined]
    assert np.allclose(again.read(path), pool.inputs(torch.arange(20)), atol=1e-6)
    alone: dict[str, Any] = {}
    exec(again.source(), alone)  # what an export writes
    assert np.array_equal(alone["read"](description, path), again.read(path).numpy())
    with pytest.raises(UsageError, match="install the version of alcore-space that made it"):
        space.preprocessing_from(description | {"format": "alcore-space 2"})  # type: ignore[attr-defined]


def test_a_prediction_outside_of_the_bounds_is_warned_of(file: Any) -> None:
    reader = space(TABLES).preprocessing
    assert reader is not None
    with pytest.warns(
        UserWarning, match="1 of 2 points are outside of the bounds of the space, the first of them in row 1"
    ):
        assert len(reader.read(file("T;p\n900;1e5\n1600;1e5\n"))) == 2


def test_program_of_an_export_warns_and_refuses_as_predict_does(file: Any) -> None:
    reader, alone = space(TABLES).preprocessing, dict[str, Any]()
    assert reader is not None
    exec(reader.source(), alone)
    with pytest.warns(UserWarning, match="1 of 2 points are outside of the bounds of the space"):
        alone["read"](reader.describe(), file("T;p\n900;1e5\n1600;1e5\n"))
    for read in (reader.read, lambda path: alone["read"](reader.describe(), path)):
        with pytest.raises(ValueError, match="has no row below its header"):
            read(file("T;p\n"))


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_readme_lists_each_parameter_with_its_default() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| (`.*?`|required) \|", page, re.MULTILINE))
    for name, parameter in inspect.signature(space).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert told[name] == "required"
        else:
            assert told[name].strip("`").replace('"', "'").replace("10^9", "1000000000") == repr(parameter.default)


def test_public_names_are_found_and_others_are_not() -> None:
    for name in alcore_space.__all__:
        assert getattr(alcore_space, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'spac'"):
        _ = alcore_space.spac


def test_the_readme_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    given = tomllib.loads(table)["data"]["space"]
    assert space(**given).info.features == 7
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    assert len(found["data"].train.start_ids) == 20


def test_the_page_on_spaces_reads_as_an_experiment() -> None:
    page = (Path(__file__).parents[3] / "docs" / "space.md").read_text(encoding="utf-8")
    first, constraints, costs = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    data = space(**tomllib.loads(first)["data"]["space"])
    assert len(data.train.start_ids) == 35
    more = tomllib.loads(costs)["data"]["space"]
    more["variables"]["x"] = {"low": 0, "high": 1}
    priced = space(**more).train
    assert priced.cost(priced.start_ids[0]) == pytest.approx(0.1 * 4**4)
    names = ["x", "y", "a", "b", "T", "p", "q"]
    tables = {name: {"low": 1, "high": 2000} for name in names} | {
        "fuel": {"type": "category", "choices": ["H2", "CH4"]}
    }
    for text in tomllib.loads(constraints)["constraints"]:
        alcore_space.Space(tables, [text])
    assert all(name in page for name in FUNCTIONS)
