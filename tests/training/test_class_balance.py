"""Samplers and class weights: what they give, what they refuse before anything is trained, and how they resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import Driver, TensorPool
from alcore import config as c
from alcore.errors import Interrupted, UsageError
from alcore.pools import DataInfo
from alcore.training.class_balance import balanced_positions, balanced_weights, classes_of

Make = Callable[..., Driver]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_each_class_that_is_there_occurs_equally_often(classes: list[int], seed: int) -> None:
    positions = balanced_positions(torch.tensor(classes), generator(seed)).tolist()
    assert len(positions) == len(classes)
    by_class = Counter(classes[position] for position in positions)
    shares = [by_class[label] for label in set(classes)]
    assert max(shares) - min(shares) <= 1
    by_sample = Counter(positions)
    for label in set(classes):
        own = [by_sample[i] for i, other in enumerate(classes) if other == label]
        assert max(own) - min(own) <= 1
    assert positions == balanced_positions(torch.tensor(classes), generator(seed)).tolist()


def test_positions_are_mixed_and_another_generator_mixes_otherwise() -> None:
    classes = torch.tensor([0] * 90 + [1] * 10)
    one, other = (balanced_positions(classes, generator(seed)) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert 5 < int(classes[one[:20]].sum()) < 15


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    classes = torch.tensor([0, 0, 0, 1, 2, 2, 0, 2])
    expected = sklearn.compute_class_weight("balanced", classes=torch.arange(3).numpy(), y=classes.numpy())
    assert balanced_weights(classes, 3) == pytest.approx(expected)
    assert balanced_weights(classes, 5)[3:] == (1.0, 1.0)
    assert sum(balanced_weights(classes, 3)[label] for label in classes) == pytest.approx(len(classes))


# -- targets -----------------------------------------------------------------------------------------------------------


class Items:
    """A pool of single items, which augments."""

    info = DataInfo("classification", 2, 2, (2,))

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        torch.rand(())
        return self.items[index]

    def append(self, item: Any) -> None:
        self.items.append(item)


def test_classes_are_read_from_blocks_and_from_items(toys: Any) -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    assert classes_of(toys.pool(labeled=6), "it").tolist() == [0, 1, 0, 1, 0, 1]
    assert classes_of(Items([(torch.ones(2), torch.tensor(1)), (torch.ones(2), 0)]), "it").tolist() == [1, 0]
    assert classes_of(TensorPool(torch.ones(2, 2), torch.tensor([[1.0], [0.0]]), range(2)), "it").tolist() == [1, 0]
    assert torch.equal(torch.rand(()), expected), "global generators must be left alone"


@pytest.mark.parametrize(
    ("targets", "message"),
    [([0.5, 1.0], "not classes but torch.float32"), ([-1, 1], "not classes"), ([[0, 1], [1, 0]], r"shape \(2, 2\)")],
)
def test_targets_that_are_not_classes_are_refused(targets: Any, message: str) -> None:
    pool = TensorPool(torch.ones(2, 2), torch.tensor(targets), range(2), info=DataInfo("classification", 2, 2, (2,)))
    with pytest.raises(UsageError, match=message):
        classes_of(pool, "it is so")


# -- in a run ----------------------------------------------------------------------------------------------------------


class Orders:
    """Trains nothing, and keeps what it was given."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []
        self.losses: list[float] = []

    def __call__(
        self, model: Any, optimizer: Any, train_dataloader: Any, max_epochs: int, train_step_fn: Any, **kwargs: Any
    ) -> None:
        for _ in range(max_epochs):
            batches = list(train_dataloader)
            assert len(batches) == len(train_dataloader)
            self.epochs.append([target for _, targets in batches for target in targets.tolist()])
            self.losses += [float(train_step_fn(model, batch).detach()) for batch in batches]


def uneven(toys: Any, ones: int = 3) -> TensorPool:
    plain = toys.pool(n=40)
    targets = (torch.arange(40) < ones).long()
    return TensorPool(plain.inputs(torch.arange(40)), targets, labeled=range(20))


def test_a_balanced_sampler_reaches_the_loop(build: Make, toys: Any) -> None:
    loop = Orders()
    build(train_datapool=uneven(toys), sampler="balanced", train_loop_fn=loop, max_training_epochs=2).run()
    assert len(loop.epochs) > 2
    assert loop.epochs[0] != loop.epochs[1]
    for epoch in loop.epochs:
        assert abs(2 * sum(epoch) - len(epoch)) <= 1


class Third(torch.utils.data.Sampler[int]):
    """A third of the pool, from the global generator, as samplers without a generator do."""

    def __init__(self, pool: Any, generator: torch.Generator) -> None:
        self.size = len(pool)

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.size)[: self.size // 3].tolist())


@pytest.mark.parametrize(
    "sampler",
    [
        Third,
        lambda pool, generator: torch.utils.data.WeightedRandomSampler(torch.ones(len(pool)).tolist(), len(pool) // 3),
        lambda pool, generator: torch.randperm(len(pool), generator=generator)[: len(pool) // 3],
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_sampler_of_the_users_depends_on_the_seed_alone(build: Make, toys: Any, sampler: Any, whole: bool) -> None:
    def epochs(disturbed: int, seed: int = 0) -> list[list[float]]:
        loop = Orders()
        pool = uneven(toys, ones=10)
        if not whole:
            pool.batch = None  # type: ignore[assignment,method-assign]
        driver = build(train_datapool=pool, sampler=sampler, train_loop_fn=loop, max_training_epochs=3, seed=seed)
        torch.manual_seed(disturbed)
        driver.run()
        return loop.epochs

    assert epochs(1) == epochs(2) != epochs(1, seed=3)
    assert len(epochs(1)[0]) == 20 // 3


def test_class_weights_are_in_the_default_loss(build: Make, toys: Any) -> None:
    def losses(pool: TensorPool, **options: Any) -> list[float]:
        loop = Orders()
        driver = build(
            train_datapool=pool, train_loop_fn=loop, max_training_epochs=1, max_active_learning_steps=1,
            batch_size=20, **options,
        )  # fmt: skip
        driver.run()
        return loop.losses

    pool = uneven(toys)
    balanced, given, plain = (
        losses(uneven(toys), class_weights=weights) for weights in ("balanced", (20 / 34, 20 / 6), None)
    )
    assert balanced == pytest.approx(given)
    assert balanced != pytest.approx(plain)
    model = toys.learner()
    inputs, targets = pool.batch(torch.arange(20))
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        model(inputs).flatten(), targets.float(), reduction="none"
    )
    expected = (each[targets == 0].mean() + each[targets == 1].mean()).detach() / 2
    assert balanced == pytest.approx([float(expected)])


def test_balanced_weights_follow_the_labels(build: Make, toys: Any) -> None:
    class Weights:
        seen: list[Any] = []  # noqa: RUF012

        def attach(self, context: Any) -> None:
            self.context = context

        def __call__(self, *args: Any, **kwargs: Any) -> None:
            self.seen.append(self.context.info.class_weights)

    build(
        train_datapool=uneven(toys), class_weights="balanced", max_active_learning_steps=2, train_loop_fn=Weights()
    ).run()
    seen = Weights.seen
    assert seen == [pytest.approx((20 / 34, 20 / 6)), pytest.approx((23 / 40, 23 / 6))]


def test_a_class_without_samples_is_told_once(build: Make, toys: Any, caplog: Any) -> None:
    pool = uneven(toys)
    pool.info = DataInfo("classification", 3, 2, (2,))
    model = torch.nn.Linear(2, 3)
    build(train_datapool=pool, learner=model, sampler="balanced", class_weights="balanced").run()
    lines = [record.getMessage() for record in caplog.records if "balanced" in record.getMessage()]
    assert len(lines) == 1
    assert "no sample of class 2 is labeled yet" in lines[0]


def wrong() -> dict[str, tuple[dict[str, Any], str]]:
    regression = TensorPool(torch.randn(20, 2), torch.randn(20), range(10))
    nested = Items([{"inputs": torch.ones(2), "targets": torch.tensor(i % 2)} for i in range(10)])
    return {
        "regression sampler": (
            {"train_datapool": regression, "sampler": "balanced"}, "sampler is 'balanced', and the task.*regression"
        ),
        "regression weights": (
            {"train_datapool": regression, "class_weights": [1, 2]}, "class_weights is given, and the task.*regression"
        ),
        "unknown classes": (
            {"train_datapool": nested, "sampler": "balanced", "learner": Own()}, "unknown.*not pairs.*a dict"
        ),
        "too many": ({"class_weights": [1, 1, 1]}, "has 3 weights, and this data has 2 classes"),
        "own step": ({"class_weights": "balanced", "learner": Own()}, "default loss uses, and Own has a training_step"),
        "no positions": ({"sampler": lambda pool, generator: []}, "at least one"),
        "outside": ({"sampler": lambda pool, generator: [0, len(pool)]}, "0 to 7.*returned.*8"),
        "not whole": ({"sampler": lambda pool, generator: torch.rand(3)}, "whole numbers"),
        "nothing": ({"sampler": lambda pool, generator: None}, "whole numbers"),
    }  # fmt: skip


class Own(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 1)

    def training_step(self, batch: Any) -> torch.Tensor:
        return self(batch[0]).mean()


@pytest.mark.parametrize("name", sorted(wrong()))
def test_what_does_not_fit_is_refused_before_anything_is_trained(build: Make, name: str) -> None:
    options, message = wrong()[name]
    driver = build(**options, train_loop_fn=lambda *args, **kwargs: pytest.fail("it trained"))
    with pytest.raises(UsageError, match=message):
        driver.run()
    assert not driver.log_dir.exists()


@pytest.mark.parametrize(
    "options",
    [{"sampler": "balance"}, {"sampler": [0, 1]}, {"class_weights": "even"}, {"class_weights": [1, -1]},
     {"class_weights": [0, 0]}, {"class_weights": [1, float("nan")]}, {"class_weights": 2.0}],
    ids=str,
)  # fmt: skip
def test_impossible_values(toys: Any, options: Any) -> None:
    with pytest.raises(UsageError, match=rf"TrainingConfig\.{next(iter(options))} is .*'balanced'"):
        c.TrainingConfig(toys.pool(), 1, **options)


@pytest.mark.parametrize("whole", [True, False])
def test_interrupted_inside_an_epoch_and_resumed_equals_uninterrupted(build: Make, toys: Any, whole: bool) -> None:
    def run(run_id: str, end_at: int | None = None, resume: bool = False) -> Any:
        pool, seen = uneven(toys), []
        if not whole:
            pool.batch = None  # type: ignore[assignment,method-assign]
        sampler = "balanced" if whole else Third
        driver = build(
            train_datapool=pool, sampler=sampler, batch_size=3, run_id=run_id, max_training_epochs=2,
            max_active_learning_steps=2, class_weights="balanced", learner=toys.learner(),
        )  # fmt: skip
        driver.learner.register_forward_hook(
            lambda *_: (seen.append(1), driver.interrupt() if len(seen) == end_at else None)[1]
        )
        if resume:
            driver.restore()
        driver.run()
        return [parameter.detach().clone() for parameter in driver.learner.parameters()]

    expected = run("whole")
    for place in (2, 3, 5, 7):
        with pytest.raises(Interrupted):
            run(f"cut-{place}", place)
        assert all(map(torch.equal, run(f"cut-{place}", resume=True), expected)), place
