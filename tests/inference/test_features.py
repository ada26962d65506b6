"""The cache gives the same bits as computing features anew, for as long as the model stays the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.inference import Net

from alcore.inference import FeatureCache, Features, extract_features, labeled_features

Build = Callable[..., Any]


def equal(one: Features, other: Features) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@pytest.mark.usefixtures("smaller")
@pytest.mark.parametrize("layer", ["", "inputs", "body.0"])
def test_cached_features_equal_computed_ones_to_the_last_bit(build: Build, toys: Any, layer: str) -> None:
    net = Net()
    driver = build(train_datapool=toys.pool(60, labeled=0), learner=net, skip_training=True)
    whole = extract_features(driver, layer=layer)
    calls = net.calls
    for ids in (torch.arange(60), torch.arange(5, 60), torch.tensor([3]), torch.tensor([0, 7, 8, 31, 59])):
        kept = extract_features(driver, ids, layer)
        assert net.calls == calls
        fresh = extract_features(build(train_datapool=toys.pool(60, labeled=0), learner=Net()), ids, layer)
        assert equal(kept, fresh)
        assert torch.equal(kept.features, whole.features[ids])


@pytest.mark.usefixtures("smaller")
def test_only_what_is_missing_is_computed(build: Build, toys: Any) -> None:
    net, pool = Net(), toys.pool(40, labeled=8)
    driver = build(train_datapool=pool, learner=net, skip_training=True)
    first = extract_features(driver)
    calls = net.calls
    pool.append((torch.ones(2), 1))  # a pool that grows
    assert equal(extract_features(driver), first)
    assert net.calls == calls
    labeled = labeled_features(driver)
    assert net.calls == calls + 2  # 8 in one chunk, the new one in another: not the 31 others
    assert labeled.ids.tolist() == [*range(8), 40]
    fresh = labeled_features(build(train_datapool=pool, learner=Net()))
    assert equal(labeled, fresh)
    calls = net.calls
    pool.append(20)
    assert labeled_features(driver).ids.tolist() == [*range(8), 40, 20]  # in training order
    assert torch.equal(labeled_features(driver).features[-1], first.features[12])
    assert net.calls == calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("part", ["features", "outputs"])
def test_what_somebody_wrote_to_is_given_to_nobody_else(build: Build, dtype: torch.dtype, part: str) -> None:
    fresh = extract_features(build(learner=Net().to(dtype), dtype=dtype))
    driver = build(learner=Net().to(dtype), dtype=dtype)
    getattr(extract_features(driver), part)[2:5].mul_(0.5)
    assert equal(extract_features(driver), fresh)


def test_a_model_that_changed_in_place_is_another(build: Build) -> None:
    net = Net()
    driver = build(learner=net, skip_training=True)
    before = extract_features(driver)
    with torch.no_grad():
        net.body[0].weight[0, 0] += 1
    after = extract_features(driver)
    assert not torch.equal(before.features, after.features)
    with torch.no_grad():
        net.body[0].weight[0, 0] -= 1
    torch.testing.assert_close(extract_features(driver).features, before.features)


def test_a_learner_that_is_trained_may_have_state_beside_its_weights(build: Build) -> None:
    net = Net()
    driver = build(learner=net)
    extract_features(driver)
    calls = net.calls
    extract_features(driver)
    assert net.calls == calls
    driver.position.step = 1
    extract_features(driver)
    assert net.calls > calls


def test_cache_keeps_nothing_of_a_learner_without_state_dict(build: Build) -> None:
    class Estimator:
        def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.sum(dim=1)

    learner = Estimator()
    driver = build(learner=learner, skip_training=True)
    before = extract_features(driver).outputs
    learner.__class__ = type("Fitted", (Estimator,), {"__call__": lambda self, inputs: inputs.sum(dim=1) + 1})
    assert torch.equal(extract_features(driver).outputs, before + 1)


def test_the_cache_stays_below_its_cap() -> None:
    def made(n: int) -> Features:
        return Features(torch.arange(n), torch.zeros(n, 1), torch.zeros(n))  # 16 bytes a sample

    cache = FeatureCache(limit=160)
    cache.keep("model", "a", made(11))
    assert not cache.find("model", "a")
    cache.keep("model", "a", made(6))
    cache.keep("model", "b", made(5))
    assert not cache.find("model", "b")  # both would be 176
    cache.keep("model", "b", made(4))
    assert cache.find("model", "a")
    assert cache.find("model", "b")
    assert not cache.find("other", "a")
    cache.keep("other", "a", made(10))
    assert not cache.find("model", "b")


def test_parts_are_kept_apart_and_put_together_when_there_are_many() -> None:
    cache, ids = FeatureCache(), torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for some in torch.split(ids, 4):
        some = some.sort().values
        cache.keep("model", "a", Features(some, some[:, None].float(), some.float()))
        parts = cache.find("model", "a")
        assert len(parts) <= 8
        assert all(bool((part.ids.diff() > 0).all()) for part in parts)
    assert sorted(torch.cat([part.ids for part in parts]).tolist()) == list(range(60))
    for part in parts:
        assert torch.equal(part.features[:, 0], part.ids.float())
        assert torch.equal(part.outputs, part.ids.float())


@pytest.mark.usefixtures("smaller")
@pytest.mark.parametrize("outputs", [True, False])
@pytest.mark.parametrize("layer", ["", "inputs"])
def test_features_of_several_parts_equal_those_computed_at_once(
    build: Build, toys: Any, layer: str, outputs: bool
) -> None:
    net = Net()
    driver = build(train_datapool=toys.pool(60, labeled=0), learner=net, skip_training=True)
    fresh = extract_features(build(train_datapool=toys.pool(60, labeled=0), learner=Net()), layer=layer)
    for rows in (range(0, 60, 7), range(20, 30), range(0, 60, 3), range(60)):
        ids = torch.tensor(rows)
        features = extract_features(driver, ids, layer, outputs=outputs)
        assert torch.equal(features.ids, ids)
        assert torch.equal(features.features, fresh.features[ids])
        assert torch.equal(features.outputs, fresh.outputs[ids] if outputs else torch.empty(len(ids), 0))
    calls = net.calls
    assert torch.equal(extract_features(driver, layer=layer, outputs=False).features, fresh.features)
    assert net.calls == calls


def test_inputs_alone_are_given_without_calling_the_learner(build: Build, toys: Any) -> None:
    net = Net()
    driver = build(train_datapool=toys.pool(60, labeled=5), learner=net, skip_training=True)
    features = extract_features(driver, layer="inputs", outputs=False)
    labeled = labeled_features(driver, "inputs", outputs=False)
    assert net.calls == 0
    assert torch.equal(features.features, driver.train_datapool.inputs(torch.arange(5, 60)))
    assert torch.equal(labeled.features, driver.train_datapool.inputs(torch.arange(5)))
    assert labeled.targets is not None


def test_beyond_the_cap_features_are_computed_each_time(build: Build) -> None:
    net = Net()
    driver = build(learner=net, skip_training=True)
    driver.feature_cache = FeatureCache(limit=100)
    first = extract_features(driver)
    calls = net.calls
    assert equal(extract_features(driver), first)
    assert net.calls > calls
