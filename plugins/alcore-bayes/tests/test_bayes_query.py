"""The strategies with a real Driver."""

import logging
import math

import pytest
import torch
from alcore_bayes import (
    BALDQuery,
    BatchBALDQuery,
    CommitteeQuery,
    Ensemble,
    MeanStdQuery,
    PowerBALDQuery,
    VariationRatioQuery,
    batch_bald,
    perturb,
)
from alcore_moons import mlp, moons
from alcore_testing import ask, build_driver, prepare, rows_at_once, untouched
from torch import nn

from alcore import TensorPool, plugins
from alcore.inference import subset
from alcore.outputs import bald, mc_dropout, mean_std, variation_ratio, vote_entropy
from alcore.store import Run

STRATEGIES = {
    "bald": BALDQuery,
    "batchbald": BatchBALDQuery,
    "mean-std": MeanStdQuery,
    "powerbald": PowerBALDQuery,
    "qbc": CommitteeQuery,
    "variation-ratio": VariationRatioQuery,
}
every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
POINTWISE = [
    (BALDQuery, {}, bald),
    (VariationRatioQuery, {}, variation_ratio),
    (VariationRatioQuery, {"of": "mean"}, lambda outputs: variation_ratio(outputs, of="mean")),
    (MeanStdQuery, {}, mean_std),
    (CommitteeQuery, {}, vote_entropy),
    (CommitteeQuery, {"measure": "kl"}, bald),
]


def pool_of(inputs, labeled=(0, 1), classes=3, targets=None):
    return TensorPool(inputs, torch.arange(len(inputs)) % classes if targets is None else targets, labeled=labeled)


def network(*layers, seed=0, outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), *(layers or (nn.Dropout(0.3),)), nn.Linear(16, outputs))


def points(n=90, seed=1):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def driver_of(folder, *queries, learner=None, pool=None, **settings):
    pool = pool_of(points()) if pool is None else pool
    return prepare(build_driver(folder, *queries, pool=pool, learner=learner or network(), **settings))


def own_samples(folder, query, outputs, labeled=(0, 1), **settings):
    """A learner that returns posterior samples (K, B, C) which stand in the pool as (N, K, C)."""
    pool, learner = pool_of(outputs.transpose(0, 1).contiguous(), labeled), nn.Flatten(0, 0)
    settings = {"skip_training": True, "inference_fn": lambda _learner, inputs: inputs.transpose(0, 1), **settings}
    return driver_of(folder, query, learner=learner, pool=pool, **settings)


def best(scores, candidates, n):
    return sorted(candidates, key=lambda one: (-scores[one], one))[:n]


# -- what they ask for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "parameters", "measure"), POINTWISE)
def test_picks_and_scores_of_a_learners_own_samples(tmp_path, strategy, parameters, measure):
    outputs = 2 * torch.randn(7, 200, 4, generator=torch.Generator().manual_seed(2))
    driver = own_samples(tmp_path, strategy(12, **parameters), outputs, labeled=range(0, 200, 5))
    scores = measure(outputs).tolist()
    asked = ask(driver)
    assert asked == best(scores, [sample for sample in range(200) if sample % 5], 12)
    assert [request.score for request in driver.query_queue.asked] == pytest.approx(
        [scores[request] for request in asked], abs=1e-15
    )


@pytest.mark.parametrize(("strategy", "parameters", "measure"), POINTWISE)
def test_picks_by_mc_dropout(tmp_path, strategy, parameters, measure):
    learner = network()
    driver = driver_of(tmp_path, strategy(9, samples=6, **parameters), learner=learner)
    asked = ask(driver)
    (chosen,) = driver.query_strategies
    driver.position.phase = "query"
    scores = measure(mc_dropout(learner, points(), 6, chosen.generator("dropout").initial_seed()))
    assert asked == best(scores.tolist(), range(2, 90), 9)


def test_a_binary_learner(tmp_path):
    driver = driver_of(tmp_path, BALDQuery(5, 8), learner=network(outputs=1), pool=pool_of(points(), classes=2))
    assert len(set(ask(driver))) == 5
    flat = nn.Sequential(*network(outputs=1), nn.Flatten(0))
    assert len(set(ask(driver_of(tmp_path, BALDQuery(5, 8), learner=flat, pool=pool_of(points(), classes=2))))) == 5


def test_batchbald_asks_for_the_batch_of_the_function(tmp_path):
    outputs = 2 * torch.randn(7, 100, 4, generator=torch.Generator().manual_seed(3))
    driver = own_samples(tmp_path, BatchBALDQuery(5), outputs, labeled=range(0, 100, 3))
    ids = torch.tensor([sample for sample in range(100) if sample % 3])
    chosen, gains = batch_bald(outputs[:, ids], 5)
    assert ask(driver) == ids[chosen].tolist()
    assert [request.score for request in driver.query_queue.asked] == pytest.approx(gains.tolist(), abs=1e-6)


@pytest.mark.parametrize("candidates", [30, 0.4])
def test_batchbald_looks_at_a_random_part(tmp_path, candidates):
    outputs = torch.randn(5, 80, 3, generator=torch.Generator().manual_seed(4))
    query = BatchBALDQuery(4, candidates)
    driver = own_samples(tmp_path, query, outputs)
    asked = ask(driver)
    driver.position.phase = "query"
    ids = subset(own_samples(tmp_path, BatchBALDQuery(), outputs), candidates, query.generator("candidates"))
    assert len(ids) == (30 if candidates == 30 else math.ceil(0.4 * 78))
    assert asked == ids[batch_bald(outputs[:, ids], 4)[0]].tolist()


def test_batchbald_with_few_configurations_depends_on_the_seed(tmp_path):
    outputs = torch.randn(8, 60, 4, generator=torch.Generator().manual_seed(5))

    def picks(seed):
        return ask(own_samples(tmp_path, BatchBALDQuery(8, num_samples=4), outputs, seed=seed))

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)


@pytest.mark.parametrize("noise", ["power", "softmax", "softrank"])
@rows_at_once(8)
def test_powerbald_perturbs_bald_scores_in_the_order_of_ids(tmp_path, noise):
    outputs = torch.randn(6, 70, 3, generator=torch.Generator().manual_seed(6))
    query = PowerBALDQuery(10, beta=4.0, noise=noise)
    driver = own_samples(tmp_path, query, outputs, labeled=range(0, 70, 4))
    asked = ask(driver)
    driver.position.phase = "query"
    ids = [sample for sample in range(70) if sample % 4]
    perturbed = perturb(bald(outputs[:, ids]), query.generator("noise"), noise, 4.0)
    assert asked == [ids[position] for position in perturbed.argsort(descending=True)[:10].tolist()]


@every_strategy
@rows_at_once(64, least=1)
def test_the_more_posterior_samples_the_smaller_the_chunks(tmp_path, name):
    learner, most = network(), []
    learner.register_forward_pre_hook(lambda _module, given: most.append(len(given[0])))
    for samples in (2, 8):
        driver = driver_of(tmp_path / str(samples), STRATEGIES[name](5, samples=samples), learner=learner, batch_size=1)
        most.clear()
        ask(driver)
        assert max(most) == 64 // samples


@every_strategy
def test_equal_samples_go_by_id_under_dropout(tmp_path, name):
    driver = driver_of(tmp_path, STRATEGIES[name](5, samples=5), pool=pool_of(points(1).expand(60, -1).clone()))
    asked = ask(driver)
    assert len(set(asked)) == 5
    assert asked == [2, 3, 4, 5, 6] or name == "powerbald"


# -- the masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bald", "mean-std", "qbc", "variation-ratio"])
def test_a_samples_score_depends_on_no_other_sample(tmp_path, name):
    """The pool in another order, and in other chunks, gives each sample the same score."""

    def scores(order, rows):
        driver = driver_of(tmp_path, STRATEGIES[name](88, samples=5), pool=pool_of(points()[order]))
        with rows_at_once(rows):
            asked = ask(driver)
        return {
            order[one]: score for one, score in zip(asked, (r.score for r in driver.query_queue.asked), strict=True)
        }

    whole = scores(list(range(90)), 4096)
    other = scores([0, 1, *range(89, 1, -1)], 8)
    assert whole.keys() == other.keys()
    for sample, score in whole.items():
        assert other[sample] == pytest.approx(score, abs=1e-6)


def test_masks_change_from_step_to_step(tmp_path):
    query = BALDQuery(3, samples=4)
    driver = driver_of(tmp_path, query)
    ask(driver)
    first = query.infer(points())
    assert torch.equal(query.infer(points()), first)
    driver.position.step = 1
    assert not torch.equal(query.infer(points()), first)


def test_two_strategies_of_a_step_draw_masks_of_their_own(tmp_path):
    one, two = BALDQuery(3, samples=4), BALDQuery(3, samples=4)
    driver_of(tmp_path, one, two)
    assert not torch.equal(one.infer(points()), two.infer(points()))


@every_strategy
def test_an_error_while_it_samples_leaves_nothing_behind(tmp_path, name):
    class Breaks(nn.Module):
        calls = broken = 0

        def forward(self, x):
            self.calls += 1
            if self.broken and self.calls == self.broken:
                raise RuntimeError("broken")
            return x

    learner = network(nn.Dropout(0.3), Breaks()).train()
    learner[0].eval()
    driver = driver_of(tmp_path, STRATEGIES[name](3, samples=6), learner=learner)
    Breaks.broken = learner[3].calls + 4
    with untouched(driver):
        with pytest.raises(RuntimeError, match="broken"):
            ask(driver)
        learner[3].calls = Breaks.broken
    Breaks.broken = 0
    assert len(ask(driver)) == 3


# -- whole runs --------------------------------------------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize("kind", ["dropout", "ensemble"])
def test_a_run_on_the_moons(tmp_path, name, kind):
    torch.manual_seed(0)
    data = moons(120, seed=0)
    learner = mlp(data.info, (8,), 0.3) if kind == "dropout" else Ensemble([mlp(data.info, (8,)) for _ in range(3)])
    driver = build_driver(tmp_path, STRATEGIES[name](4, samples=4), pool=data.train, learner=learner, epochs=3)
    driver.logger.setLevel(logging.ERROR)
    driver.run()
    requests = Run(driver.log_dir).requests()
    assert len({request["sample"] for request in requests}) == len(requests) == 12
    assert all(request["score"] is not None and math.isfinite(request["score"]) for request in requests)
    assert len(data.train) == 6 + 12
    if name in ("bald", "mean-std"):
        assert all(request["score"] > 0 for request in requests)


def test_plugin_offers_its_parts_by_name():
    import alcore_bayes

    registry = plugins.installed()
    for name, strategy in STRATEGIES.items():
        assert type(registry.make("query", name, max_samples=3)) is strategy
    for name in alcore_bayes.__all__:
        assert callable(getattr(alcore_bayes, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = alcore_bayes.nothing
