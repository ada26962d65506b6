"""Items and labels that are dataclasses and named tuples: strategies and pool get them as they were put."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.processes import run_forked

from alcore import Driver, Label, UsageError, codec
from alcore.errors import Interrupted
from alcore.store.reading import Run
from alcore.strategies import BaseLabel, BaseMetrology, BaseQuery

Build = Callable[..., Driver]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Part of a case."""

    length: float


@dataclasses.dataclass
class Case:
    """What a solver is given."""

    x: torch.Tensor
    name: str
    shape: Shape


class Result(NamedTuple):
    """What it returns."""

    y: torch.Tensor
    field: Any = None


class Cases:
    """Solver runs in memory."""

    def __init__(self) -> None:
        self.items = [
            (Case(torch.tensor([float(n), 1.0]), "given", Shape(n)), Result(torch.tensor(n % 2))) for n in range(4)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def append(self, item: Any) -> None:
        case, result = (item.item, item.value) if isinstance(item, Label) else item
        assert type(case) is Case
        assert type(case.shape) is Shape
        assert type(result) is Result
        self.items.append((case, result))


class AskCases(BaseQuery):
    """Ask for made-up cases, which it keeps."""

    def __init__(self) -> None:
        self.asked: list[Case] = []

    def sample(self, query_queue: Any, *args: Any, **kwargs: Any) -> None:
        for n in range(3):
            x = torch.rand(2, generator=self.generator(str(n)))
            self.asked.append(Case(x, f"{len(self.asked)}", Shape(n / 3)))
            query_queue.put(self.asked[-1])

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: Any) -> None:
        assert all(type(case) is Case for case in state["asked"])
        self.asked = list(state["asked"])


class Solver(BaseLabel):
    """Answers in one of two ways; the field is too large for the database."""

    idempotent = True

    def __init__(self, end_after: int = 0, bare: bool = False, size: int = 2) -> None:
        self.left, self.bare, self.size = end_after, bare, size

    def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
        while not queue_to_label.empty():
            case = queue_to_label.get()
            assert type(case) is Case
            assert type(case.shape) is Shape
            result = Result((case.x.sum() > 1).long(), torch.full((self.size,), case.shape.length))
            self.left -= 1
            if self.left == 0:
                self.driver.interrupt()
            serialize_queue.put((case, result) if self.bare else Label(case, result))


class CountCases(BaseMetrology):
    """Its records hold an object, too."""

    def compute(self, *args: Any, **kwargs: Any) -> None:
        assert all(type(record["last"]) is Shape for record in self.records)
        self.append({"last": Shape(float(len(self.driver.train_datapool)))})


def collate(items: Any) -> Any:
    return torch.stack([case.x for case, _ in items]), torch.stack([result.y for _, result in items]).float()


def loss(model: Any, batch: Any) -> torch.Tensor:
    value: torch.Tensor = torch.nn.functional.binary_cross_entropy_with_logits(model(batch[0])[:, 0], batch[1])
    return value


@pytest.fixture
def make(build: Build, toys: Any) -> Build:
    def new(**settings: Any) -> Driver:
        parts: dict[str, Any] = {
            "train_datapool": Cases(), "query_strategies": [AskCases()], "label_strategy": Solver(),
            "metrology_strategies": [CountCases()], "collate_fn": collate, "learner": toys.learner(),
        }  # fmt: skip
        return build(**(parts | settings))

    return new


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which this process knows no class, as a new one doesn't."""
    return lambda: monkeypatch.setattr(codec, "_classes", {})


@pytest.mark.parametrize("size", [2, 20_000])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("end_after", [1, 5, 9])
def test_resumed_run_hands_out_and_appends_the_same_objects(
    make: Build, forget: Callable[[], None], end_after: int, bare: bool, size: int
) -> None:
    whole = make(run_id="whole", label_strategy=Solver(bare=bare, size=size))
    whole.run(loss)
    with pytest.raises(Interrupted):
        make(run_id="cut", label_strategy=Solver(end_after, bare, size)).run(loss)
    forget()
    rest = make(run_id="cut", label_strategy=Solver(bare=bare, size=size))
    rest.restore()
    rest.run(loss)
    assert len(rest.train_datapool) == 13
    assert codec.dumps(rest.train_datapool.items) == codec.dumps(whole.train_datapool.items)
    assert torch.equal(rest.learner.weight, whole.learner.weight)
    assert codec.dumps(rest.query_strategies[0].asked) == codec.dumps(whole.query_strategies[0].asked)
    assert codec.dumps(rest.metrology_strategies[0].records) == codec.dumps(whole.metrology_strategies[0].records)


def cut_off(make: Build) -> None:
    with pytest.raises(Interrupted):
        make(run_id="cut", label_strategy=Solver(5)).run(loss)


def test_class_is_known_by_an_item_of_the_pool(
    make: Build, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(make)
    forget()
    monkeypatch.setattr("alcore.driver.lifecycle.learn_types", lambda parts: None)
    before = torch.get_rng_state()
    driver = make(run_id="cut", metrology_strategies=[CountCases()])
    driver.restore()
    assert torch.equal(torch.get_rng_state(), before)
    driver.run(loss)
    assert len(driver.train_datapool) == 13


def test_class_that_is_not_known_is_refused_before_anything_goes_on(
    make: Build, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anything(list[Any]):
        """A pool that would take what is no case, and whose items don't tell the class."""

        def __init__(self) -> None:
            super().__init__([(torch.zeros(2), 0)] * 4)

    cut_off(make)
    forget()
    monkeypatch.setattr("alcore.driver.lifecycle.learn_types", lambda parts: None)
    pool = Anything()
    driver = make(run_id="cut", train_datapool=pool)
    with pytest.raises(UsageError, match=r"the run has values of .*:Case, .*:Shape.* import the class in the module"):
        driver.restore()
    assert len(pool) == 4


def test_nan_in_a_field_is_no_label(make: Build) -> None:
    class Broken(Solver):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None:
            while not queue_to_label.empty():
                case = queue_to_label.get()
                serialize_queue.put(Label(case, Result(torch.tensor(1), Shape(float("nan")))))

    driver = make(label_strategy=Broken(), max_active_learning_steps=1)
    driver.run(loss)
    assert len(driver.train_datapool) == 4
    assert "NaN" in str(Run(driver.log_dir).refused())


def test_answers_that_are_told_reach_the_pool(make: Build, forget: Callable[[], None]) -> None:
    class Later(BaseLabel):
        def label(self, queue_to_label: Any, serialize_queue: Any, *args: Any, **kwargs: Any) -> None: ...

    driver = make(run_id="told", label_strategy=Later(), max_active_learning_steps=1)
    driver.run(loss)
    asked = driver.ask()
    assert [type(request.input) for request in asked] == [Case] * 3
    told = driver.tell([Label(request, Result(torch.tensor(1))) for request in asked])
    assert [answer.verdict for answer in told.answers] == ["accepted"] * 3
    forget()
    again = make(run_id="told", label_strategy=Later(), max_active_learning_steps=2)
    again.restore()
    again.run(loss)
    assert len(again.train_datapool) == 7


def test_other_programs_read_the_fields(make: Build, tmp_path: Path) -> None:
    driver = make(run_id="read", max_active_learning_steps=1)
    driver.run(loss)
    for words in (["show", "--json"], ["labels"], ["export", "--output", str(tmp_path / "out")]):
        done = run_forked("-m", "alcore", *words, driver.log_dir, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [[*json.loads(row["value"])] for row in rows if row["value"]] == [["y", "field"]] * 3
    records = json.loads((driver.log_dir / "count_cases.json").read_text())
    assert [record["last"] for record in records] == [{"length": 4.0}]
