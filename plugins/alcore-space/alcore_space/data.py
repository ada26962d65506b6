"""The factory of ``--data space``: a design space whose labels come from simulations, measurements or people."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from alcore.errors import UsageError, check_choice, did_you_mean
from alcore.pools import Data, DataInfo, TensorPool
from alcore_space import designs
from alcore_space.constraints import Formula
from alcore_space.design_space import Space
from alcore_space.designs import MOST_TRIED, Design, allowed_points, first_points, refuse_empty
from alcore_space.pool import SpacePool, refuse_costs
from alcore_space.preprocessing import SpacePreprocessing, read_arrays, read_labeled
from alcore_space.sequence import MOST, Grid, Sobol
from alcore_space.variables import Array, Variable, highest_of, variable_of

# The network is trained anew in each step, until more epochs change little; its weights are held back little, since
# simulations have little noise.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "regression": {
        "driver": {"batch_size": 32},
        "training": {
            "max_training_epochs": 1000,
            "reset_learner": True,
            "optimizer": {"cls": "AdamW", "lr": 0.01},
        },
        "learner": {"mlp": {"hidden": [32, 32], "penalty": 0.001}},
    },
    "classification": {
        "driver": {"batch_size": 32},
        "training": {
            "max_training_epochs": 200,
            "reset_learner": True,
            "optimizer": {"cls": "AdamW", "lr": 0.01},
        },
        "learner": {"mlp": {"hidden": [32, 32]}},
    },
}
_COSTS_TRIED = 4096  # candidates whose cost is looked at before a run
_STEPS, _A_STEP = 11, 5  # where nobody says: the start, and ten steps
_logger = logging.getLogger(__name__)


def space(
    variables: dict[str, Any] | list[Any] | Space,
    constraints: tuple[str, ...] = (),
    targets: tuple[str, ...] = ("target",),
    shape: tuple[int, ...] = (),
    classes: tuple[str, ...] = (),
    candidates: int = 1_000_000_000,
    candidates_per_step: int = 1_000_000,
    initial: int | None = None,
    design: Design = "sobol",
    validation: int | Path = 0,
    cost: str | None = None,
    fidelity: str | None = None,
    seed: int | None = None,
) -> Data:
    """Learn a function of some variables between bounds, whose values a label strategy gets: a simulation, a person.

    Parameters
    ----------
    variables
        A table for each variable, by name. ``type`` is real (the default), log, integer or category; numbers have
        ``low`` and ``high``, a category has ``choices``; ``unit`` is for people. From Python also a list of
        `Real`, `Log`, `Integer` and `Category`, or a `Space`.
    constraints
        What points must satisfy, such as ``2*x + y <= 3``; ``and``, ``or``, ``not`` join comparisons, and there are
        functions such as sqrt, exp, log10, min and max.
    targets
        Names of what is predicted; several are one label of as many numbers.
    shape
        Shape of a target that is a field or a curve, such as ``[33, 33]``.
    classes
        Names of the classes, for a classification.
    candidates
        How many points may be asked for: 2^30 at most, which take no memory. A finite space has all of its points.
    candidates_per_step
        How many of them a step looks at; the next step looks at others.
    initial
        Points of the start design; five a variable, at least 10 and at most 50, if it is not given. 0 leaves the first
        selection to another start strategy.
    design
        ``sobol``, ``latin-hypercube`` or ``max-min``.
    validation
        How many points to measure on: they are asked for first, cost labels, and are not trained on. Or a CSV file of
        such points, with a column for each variable and target; or an NPZ file with an array for each, where targets
        are fields. Without any, metrology measures on what is trained on.
    cost
        What the label of a point costs, as a formula of the variables, such as ``0.1 * 4**mesh``; 1 if it is not given.
    fidelity
        The variable that says how exact a label is, such as the level of a mesh: its highest value, or its last choice,
        is what is to be learned. The points of `validation` have that value.
    seed
        Seed of the candidates and of the designs; by default the run's seed, or 0.

    Returns
    -------
    Data
        A `SpacePool`, which has no labels, and what is known about the data. The standard parts are a start with
        ``design`` and labels by ``ask``.

    Raises
    ------
    UsageError
        For a space that can't be used as it is, with all that is wrong. Where no point satisfies the constraints, after
        4,194,304 points were tried.
    """
    made = _space_of(variables, constraints)
    check_choice("data.space", "design", design, get_args(Design))
    info = _info(made, targets, shape, classes)
    seed = 0 if seed is None else seed
    size = made.size
    wanted = _usual_start(len(made.variables), size) if initial is None else initial
    _check_counts(candidates, candidates_per_step, wanted, validation)
    held = validation if isinstance(validation, int) else 0

    points: Grid | Sobol
    if size is not None and size <= MOST:
        points = Grid([variable.count or 0 for variable in made.variables], (seed, 0))
        candidates = min(candidates, size)
    else:
        points = Sobol(len(made.variables), (seed, 0))
    refuse_empty(made, points, candidates)
    highest = _highest(made, fidelity)
    start, held_out = _start(made, points, candidates, design, wanted, held, highest, seed)
    costs = _costs(made, cost, points(np.arange(min(candidates, _COSTS_TRIED))))
    pool = SpacePool(made, points, candidates, candidates_per_step, info, start, held_out, costs, fidelity)
    val: Any = pool.held_out if held else None
    if isinstance(validation, Path):
        val = _of_file(validation, made, targets, info)
    if val is None:
        _logger.info("the space has no points to measure on; data.space.validation gives some")

    defaults = copy.deepcopy(_DEFAULTS[info.task])
    defaults["driver"]["max_active_learning_steps"] = _STEPS
    defaults["query"] = {"*": {"max_samples": _A_STEP}}
    parts = {"label": ["ask"]} | ({"start": ["design"]} if pool.start_ids else {})
    preprocessing = SpacePreprocessing.of(made, targets)
    return Data(pool, val, info=info, defaults=defaults, preprocessing=preprocessing, parts=parts)


space.preprocessing_from = SpacePreprocessing  # type: ignore[attr-defined]  # see alcore.protocols.FactoryOptions


def _space_of(variables: Any, constraints: Sequence[str]) -> Space:
    if isinstance(variables, Space):
        if constraints:
            raise UsageError("data.space: constraints are given beside a Space, which has its own; give them to it.")
        return variables
    if isinstance(variables, list):
        made: list[Variable] = []
        for place, variable in enumerate(variables):
            if isinstance(variable, dict):
                table = {key: value for key, value in variable.items() if key != "name"}
                made.append(variable_of(str(variable.get("name", f"number {place + 1}")), table))
            else:
                made.append(variable)
        variables = made
    try:
        return Space(variables, constraints)
    except UsageError as error:
        raise UsageError(f"data.space: {error}") from None


def _info(space: Space, targets: Sequence[str], shape: Sequence[int], classes: Sequence[str]) -> DataInfo:
    if not targets or len(set(targets)) < len(targets) or not all(targets):
        raise UsageError(f"data.space: targets is {list(targets)!r}; it names at least one target, each once.")
    if clash := sorted({*targets} & {*space.names}):
        raise UsageError(f"data.space: {clash[0]} is the name of a variable and of a target; rename one.")
    if any(axis < 1 for axis in shape):
        raise UsageError(f"data.space: shape is {list(shape)!r}; its axes have a length of at least 1.")
    if not classes:
        of_all = (len(targets), *shape) if len(targets) > 1 else tuple(shape)
        return DataInfo("regression", 0, space.features, (space.features,), target_shape=of_all)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise UsageError(f"data.space: classes is {list(classes)!r}; it names two classes at least, each once.")
    if len(targets) > 1 or shape:
        raise UsageError("data.space: a classification has one target, and no shape; leave out targets and shape.")
    return DataInfo("classification", len(classes), space.features, (space.features,), tuple(classes))


def _usual_start(variables: int, size: int | None) -> int:
    """Return how many points a start design has where nobody says: of a small space, half of its points at most."""
    usual = min(50, max(10, 5 * variables))
    return usual if size is None else max(1, min(usual, size // 2))


def _check_counts(candidates: int, candidates_per_step: int, initial: int, validation: int | Path) -> None:
    if not 1 <= candidates <= MOST:
        raise UsageError(f"data.space: candidates is {candidates}; it must be at least 1 and at most {MOST:,}.")
    if candidates_per_step < 1:
        raise UsageError(f"data.space: candidates_per_step is {candidates_per_step}; it must be at least 1.")
    for name, count in (("initial", initial), ("validation", validation)):
        if isinstance(count, int) and not 0 <= count <= 1_000_000:
            raise UsageError(f"data.space: {name} is {count}; it must be at least 0 and at most 1,000,000.")
    if not initial and isinstance(validation, int) and validation:
        raise UsageError(
            f"data.space: initial is 0, and the {validation} points of validation are asked for with the start design; "
            "give initial, or a CSV file as validation."
        )


def _highest(space: Space, fidelity: str | None) -> _Highest | None:
    """Return what puts points at the highest fidelity; None where there is one alone."""
    if fidelity is None:
        return None
    if fidelity not in space.names:
        raise UsageError(
            f"data.space: fidelity is {fidelity!r}, and it must be a variable: {did_you_mean(fidelity, space.names)}."
        )
    place = space.names.index(fidelity)
    variable = space.variables[place]
    top = highest_of(variable)
    return _Highest(place, float(variable.places(np.array([top]))[0]), fidelity, top)


class _Highest(NamedTuple):
    """The highest value of the variable that is the fidelity, and its place in the unit cube."""

    column: int
    place: float
    name: str
    value: Any

    def of(self, points: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """Return points moved to the highest fidelity."""

        def moved(ids: Array) -> Array:
            unit = points(ids).copy()
            unit[:, self.column] = self.place
            return unit

        return moved


def _costs(space: Space, text: str | None, unit: Array) -> Formula | None:
    """Return the formula of costs, after it was tried on places in the unit cube."""
    if text is None:
        return None
    try:
        made = Formula("cost", text, space.variables)
        columns = space.values(unit)
        allowed = space.allowed(columns)
        columns = {name: column[allowed] for name, column in columns.items()}
        refuse_costs(made, made.values(columns), lambda row: {name: [column[row]] for name, column in columns.items()})
    except UsageError as error:
        raise UsageError(f"data.space: {error}") from None
    return made


def _start(
    space: Space,
    points: Grid | Sobol,
    candidates: int,
    kind: Design,
    initial: int,
    held: int,
    highest: _Highest | None,
    seed: int,
) -> tuple[Array, Array]:
    """Return the points of the start design and those to measure on, as places in the unit cube, all different."""
    if isinstance(points, Sobol):
        others: Callable[[Array], Array] = Sobol(len(space.variables), (seed, 1))
        held_out = first_points(space, others if highest is None else highest.of(others), held, MOST_TRIED)
        start = designs.design(space, kind, initial, seed)
    else:
        start, held_out = _start_of_grid(space, points, candidates, kind, initial, held, highest, seed)
    if len(held_out) + len(start) < held + initial:
        few = f"{len(held_out) + len(start)} points that satisfy the constraints were found"
        few += f" among {MOST_TRIED:,}" if isinstance(points, Sobol) else ", which is all"
        raise UsageError(
            f"data.space: the start needs {initial + held} points, initial and validation together, and {few}; ask for "
            "fewer, or loosen the constraints."
        )
    return start, held_out


def _start_of_grid(
    space: Space,
    points: Grid,
    candidates: int,
    kind: Design,
    initial: int,
    held: int,
    highest: _Highest | None,
    seed: int,
) -> tuple[Array, Array]:
    """Return the same of a finite space: points of the design as far as they differ, then others."""
    allowed: list[int] = []
    held_out: list[int] = []
    for ids, unit in allowed_points(space, points, candidates):
        allowed += ids.tolist()
        at_top = ids if highest is None else ids[space.values(unit)[highest.name] == highest.value]
        held_out += at_top.tolist()[: held - len(held_out)]
        if len(allowed) >= held + 2 * initial and len(held_out) >= held:
            break
    allowed = [*held_out, *(number for number in allowed if number not in set(held_out))]
    free = dict.fromkeys(
        number for number in points.ids(designs.design(space, kind, initial, seed)).tolist() if number < candidates
    )
    start = [number for number in free if number not in held_out]
    start += [number for number in allowed[held:] if number not in free][: initial - len(start)]
    return points(np.array(start, dtype=np.int64)), points(np.array(held_out, dtype=np.int64))


def _of_file(path: Path, space: Space, targets: Sequence[str], info: DataInfo) -> TensorPool:
    path = path.expanduser()
    if path.suffix.lower() == ".npz" and info.task == "regression":
        shape = info.target_shape[1:] if len(targets) > 1 else info.target_shape
        inputs, values = read_arrays(path, space, targets, shape)
    elif info.target_shape and len(info.target_shape) + (len(targets) == 1) > 1:
        raise UsageError(
            f"data.space: validation is {path.name}, and a field doesn't fit in the cells of a CSV file; give an NPZ "
            f"file with an array for each variable and target ({', '.join([*space.names, *targets])}), or a number of "
            "points to be asked for."
        )
    else:
        inputs, values = read_labeled(path, space, targets, info.names)
    return TensorPool(torch.from_numpy(inputs), torch.from_numpy(values), labeled=range(len(inputs)), info=info)
