"""Features are what a layer made of the samples."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.inference import Net

from alcore.errors import UsageError
from alcore.inference import extract_features, labeled_features
from alcore.inference.extraction import check_layer
from alcore.pools import TensorPool

Build = Callable[..., Any]


def hooks(module: torch.nn.Module) -> int:
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in module.modules())


def plain(net: torch.nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First layer's output before the activation, input of the head, outputs."""
    net.eval()
    with torch.no_grad():
        first = net.body[0](inputs)
        return first, first.relu(), net.head(first.relu())


# -- what counts as features -------------------------------------------------------------------------------


@pytest.mark.usefixtures("smaller")
@pytest.mark.parametrize("layer", ["", "head", "body.0", "body", "inputs"])
def test_layers_of_a_module(build: Build, toys: Any, layer: str) -> None:
    pool, net = toys.pool(40, labeled=9), Net()
    driver = build(train_datapool=pool, learner=net)
    net.train()
    features = extract_features(driver, layer=layer)
    assert net.training
    assert not features.features.requires_grad
    assert hooks(net) == 0
    assert torch.equal(features.ids, torch.arange(9, 40))
    inputs = pool.inputs(features.ids)
    first, hidden, outputs = plain(net, inputs)
    expected = {"": hidden, "head": outputs, "body.0": first, "body": hidden, "inputs": inputs}[layer]
    torch.testing.assert_close(features.features, expected)
    torch.testing.assert_close(features.outputs, outputs)
    assert features.targets is None
    labeled = labeled_features(driver, layer)
    assert torch.equal(labeled.ids, pool.labeled_ids)
    assert labeled.features.shape == (9, features.features.shape[1])
    assert torch.equal(labeled.targets, torch.arange(9) % 2)


def test_a_learner_that_computes_in_double_keeps_it(build: Build) -> None:
    pool = TensorPool(torch.randn(10, 2, dtype=torch.float64), torch.arange(10) % 2, labeled=[0])
    exact = build(train_datapool=pool, learner=Net().double(), dtype=torch.float64)
    for layer in ("", "inputs", "body.0"):
        assert extract_features(exact, layer=layer).features.dtype == torch.float64
        assert labeled_features(exact, layer).features.dtype == torch.float64
    assert torch.equal(extract_features(exact, layer="inputs").features, pool.inputs(torch.arange(1, 10)))
    for learner, dtype in ((Net(), torch.float32), (Net().bfloat16(), torch.bfloat16)):
        driver = build(train_datapool=pool, learner=learner, dtype=dtype)
        for layer in ("", "inputs"):
            assert extract_features(driver, layer=layer).features.dtype == torch.float32


class Estimator:
    """Stands for a learner that is no module."""

    def __init__(self, *, own: bool = False) -> None:
        if own:
            self.features = self._features  # a bound method

    def _features(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 2

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.sum(dim=1)


def test_a_learner_that_is_no_module(build: Build, toys: Any) -> None:
    pool = toys.pool()
    inputs = pool.inputs(torch.arange(8, 40))
    assert torch.equal(extract_features(build(train_datapool=pool, learner=Estimator())).features, inputs)
    own = build(train_datapool=toys.pool(), learner=Estimator(own=True))
    assert torch.equal(extract_features(own).features, inputs * 2)
    assert torch.equal(extract_features(own, layer="inputs").features, inputs)
    with pytest.raises(UsageError, match=r"Estimator is not a torch module, so it has no layer 'fc'.*layer='inputs'"):
        extract_features(own, layer="fc")


def test_a_module_may_say_what_its_features_are(build: Build, toys: Any) -> None:
    class Own(Net):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return self.body[0](x)

    net = Own()
    driver = build(train_datapool=toys.pool(), learner=net)
    features = extract_features(driver)
    torch.testing.assert_close(features.features, plain(net, toys.pool().inputs(features.ids))[0])
    assert not features.features.requires_grad


@pytest.mark.usefixtures("smaller")
def test_posterior_samples_stand_on_the_second_axis(build: Build, toys: Any) -> None:
    def three(net: Any, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([net(inputs) + n for n in range(3)])

    driver = build(train_datapool=toys.pool(33), learner=Net(), inference_fn=three)
    found, labeled = extract_features(driver), labeled_features(driver)
    assert found.outputs.shape == (3, 25, 1)
    assert labeled.outputs.shape == (3, 8, 1)
    torch.testing.assert_close(found.outputs[2], found.outputs[0] + 2)
    part = found.take(torch.tensor([4, 2]))
    assert torch.equal(part.outputs, found.outputs[:, [4, 2]])
    assert part.ids.tolist() == [12, 10]


@pytest.mark.usefixtures("smaller")
def test_nested_inputs_and_layers_with_several_outputs(build: Build) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.GRU(3, 4, batch_first=True)
            self.head = torch.nn.Linear(8, 2)

        def forward(self, batch: Any) -> torch.Tensor:
            out, _ = self.cell(batch["a"])
            return self.head(input=torch.cat([out[:, -1], batch["b"][0]], dim=1))

    a, b = torch.randn(20, 6, 3), torch.randn(20, 4)
    pool = SimpleNamespace(
        unlabeled_indices=lambda: torch.arange(20), inputs=lambda ids: {"a": a[ids], "b": (b[ids],), "more": "words"},
        digest=lambda: "20 nested samples",
    )  # fmt: skip
    driver = build(unlabeled_datapool=pool, learner=Two())
    assert extract_features(driver).features.shape == (20, 8)
    torch.testing.assert_close(extract_features(driver).features[:, 4:], b)
    assert extract_features(driver, layer="cell").features.shape == (20, 24)  # what the GRU says at each of 6 times
    assert torch.equal(extract_features(driver, layer="inputs").features, torch.cat([a.flatten(1), b], dim=1))


@pytest.mark.parametrize(
    ("learner", "layer", "words"),
    [
        (Net(), "hed", r"Net has no layer 'hed': did you mean 'head'"),
        (torch.nn.Conv1d(2, 1, 1), "", r"Conv1d has no torch.nn.Linear.*layer='inputs'"),
        (Net(), "spare", "doesn't call spare;"),
        (torch.nn.Sequential(torch.nn.Unflatten(1, (2, 1)), torch.nn.Flatten(0), torch.nn.Unflatten(0, (-1, 1)),
                             torch.nn.Linear(1, 1), torch.nn.Flatten(0), torch.nn.Unflatten(0, (-1, 2))), "",
         r"last linear layer has \d+ rows for \d+ samples"),
    ],
)  # fmt: skip
def test_refusals(build: Build, learner: Any, layer: str, words: str) -> None:
    if layer == "spare":
        learner.spare = torch.nn.Linear(2, 2)
    driver = build(learner=learner)
    for look in (extract_features, check_layer):
        with pytest.raises(UsageError, match=words):
            look(driver, layer=layer)
    assert hooks(learner) == 0


def test_hooks_and_modes_are_as_before_when_the_learner_fails(build: Build) -> None:
    net = Net().train()
    driver = build(learner=net, inference_fn=lambda model, inputs: model(inputs) / (1 // 0))
    for look in (extract_features, labeled_features):
        with pytest.raises(ZeroDivisionError):
            look(driver)
    assert hooks(net) == 0
    assert net.training


def test_outputs_that_are_no_tensor_are_refused(build: Build) -> None:
    driver = build(learner=Net(), inference_fn=lambda model, inputs: {"y": model(inputs)})
    with pytest.raises(UsageError, match="returned a dict, not a tensor"):
        extract_features(driver)


# -- pools -------------------------------------------------------------------------------------------------


def test_features_of_no_labeled_samples_and_no_candidates(build: Build, toys: Any) -> None:
    driver = build(train_datapool=toys.pool(6, labeled=0), learner=Net())
    assert len(labeled_features(driver).ids) == 0
    full = build(train_datapool=toys.pool(6, labeled=6), learner=Net())
    assert len(extract_features(full).ids) == 0
    assert len(labeled_features(full).ids) == 6


@pytest.mark.parametrize("plain_pool", [True, False])
def test_a_pool_of_its_own_to_choose_from(build: Build, toys: Any, plain_pool: bool) -> None:
    choice = toys.pool(30, labeled=0)
    train = TensorPool(choice.inputs(torch.arange(12)), torch.arange(12) % 2, labeled=range(5))
    if plain_pool:  # without ids, inputs or batch: its items are taken as they come
        labeled_pool = train
        train = [labeled_pool[place] for place in range(5)]
    net = Net()
    driver = build(train_datapool=train, unlabeled_datapool=choice, learner=net)
    labeled, candidates = labeled_features(driver), extract_features(driver)
    assert len(candidates.ids) == 30
    assert labeled.ids.tolist() == [-1] * 5
    assert torch.equal(labeled.targets, torch.arange(5) % 2)
    torch.testing.assert_close(labeled.features, candidates.features[:5])
    torch.testing.assert_close(labeled_features(driver).features, labeled.features)


class Augmenting(TensorPool):
    """Adds noise to what training sees."""

    def __getitem__(self, index: int) -> Any:
        inputs, target = super().__getitem__(index)
        return inputs + torch.randn(2), target

    def batch(self, positions: torch.Tensor) -> Any:
        inputs, targets = super().batch(positions)
        return inputs + torch.randn(len(inputs), 2), targets


class Items:
    """A pool that has no more than its items."""

    def __init__(self, pool: TensorPool) -> None:
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool)

    def __getitem__(self, index: int) -> Any:
        return self._pool[index]

    def append(self, item: Any) -> None:
        self._pool.append(item)


@pytest.mark.parametrize("bare", [True, False])
def test_augmentation_is_left_out_where_the_pool_allows_and_draws_from_no_generator(
    build: Build, toys: Any, bare: bool
) -> None:
    choice = toys.pool()
    pool = Augmenting(choice.inputs(torch.arange(40)), torch.arange(40) % 2, labeled=range(8))
    driver = build(train_datapool=Items(pool) if bare else pool, unlabeled_datapool=choice, learner=Net())
    before = torch.get_rng_state()
    labeled = labeled_features(driver, "inputs")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(labeled.features, choice.inputs(torch.arange(8))) == (not bare)
    assert torch.equal(labeled.targets, torch.arange(8) % 2)
