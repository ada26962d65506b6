"""Each strategy in runs: what it asks for, beside what the contract says."""

import itertools
import pkgutil
import queue

import alcore_diversity
import pytest
import torch
from alcore_diversity import (
    ClassBalancedQuery,
    ClusterMarginQuery,
    KCenterQuery,
    ProbCoverQuery,
    StratifiedQuery,
    StratifiedStart,
    TypiClustQuery,
    probcover,
)
from alcore_dummy import DummyLabelStrategy

from alcore import Driver, TensorPool
from alcore import config as c

STRATEGIES = {name: pkgutil.resolve_name(path) for name, path in alcore_diversity.alcore_query_strategies().items()}
BY_CLASS = ["badge", "cluster-margin", "density", "class-balanced", "stratified"]
ALL = pytest.mark.parametrize("name", STRATEGIES)


class Asked(list):
    """Takes in what a strategy asks for, as the query queue does."""

    def put_many(self, items, scores=None):
        self.extend(items)
        self.scores = scores


def make_pool(size=60, classes=3, labeled=range(6), seed=0, **given):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % classes
    centers = 3 * torch.randn(classes, 4, generator=generator)
    inputs = centers[targets] + torch.randn(size, 4, generator=generator)
    return TensorPool(given.get("inputs", inputs), given.get("targets", targets), labeled=labeled)


def make_learner(classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, classes))


def make_driver(folder, query, pool=None, learner=None, *, steps=2, epochs=0, **config):
    pool = make_pool() if pool is None else pool
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=steps, root_log_dir=folder, device="cpu", seed=0,
            skip_training=not epochs, **config,
        ),
        make_learner() if learner is None else learner,
        c.StrategiesConfig([query], queue.Queue, DummyLabelStrategy()),
        c.TrainingConfig(pool, max_training_epochs=epochs),
    )  # fmt: skip


def ask(query, pool=None, learner=None, step=0):
    """What the strategy asks for in one step; nothing is written to the disk."""
    asked = Asked()
    make_driver("not-made", query, pool, learner).position.step = step
    query.check()
    query.sample(asked)
    return asked


# -- whole runs --------------------------------------------------------------------------------------------------------


@ALL
def test_a_run_until_the_pool_is_dry(name, tmp_path):
    pool = make_pool()
    driver = make_driver(tmp_path, STRATEGIES[name](max_samples=20), pool, steps=None, epochs=1)
    rounds = []
    with driver.session():
        while driver.stop_reason is None:
            driver.active_learning_step()
            rounds.append([request.sample for request in driver.query_queue.asked])
    assert list(map(len, rounds)) == [20, 20, 14, 0]
    assert sorted(itertools.chain(*rounds)) == list(range(6, 60))
    assert "sample left" in driver.stop_reason


@pytest.mark.parametrize("layer", ["", "inputs"])  # distances of inputs are kept from step to step
def test_kcenter_interrupted_and_resumed_asks_as_if_it_had_not_been(layer, tmp_path):
    def begin(folder):
        pool = make_pool(classes=2, labeled=range(4))
        query = KCenterQuery(5, layer=layer)
        return make_driver(folder, query, pool, make_learner(1), steps=5, epochs=1, run_id="run", checkpoint_interval=2)

    whole = begin(tmp_path / "whole")
    whole.run()
    cut = begin(tmp_path / "cut")
    with cut.session():
        for _ in range(3):  # a checkpoint after the second: the third step is done again
            cut.active_learning_step()
    again = begin(tmp_path / "cut")
    again.restore()
    again.run()
    assert again.train_datapool.labeled_ids.tolist() == whole.train_datapool.labeled_ids.tolist()
    assert len(whole.train_datapool.labeled_ids) == 29
    kept = whole.query_strategies[0]._kept
    assert (kept is not None) == (layer == "inputs")


@ALL
@pytest.mark.parametrize(
    "inputs",
    [torch.zeros(60, 4), torch.full((60, 4), 0.1), torch.ones(60, 4).repeat(1, 1) * 1e30, torch.eye(60, 4) * 1e-40],
)
def test_zero_equal_huge_and_tiny_inputs(name, inputs):
    asked = ask(STRATEGIES[name](9), make_pool(inputs=inputs))
    assert len(set(asked)) == 9


@ALL
def test_one_class(name):
    asked = ask(STRATEGIES[name](9), make_pool(classes=1, labeled=[]))
    assert len(set(asked)) == 9


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "stratified-start"])
def test_candidates_drawn_at_random(name):
    if name in ("kcenter", "density"):  # those that draw nothing themselves
        assert ask(STRATEGIES[name](8, candidates=8)) != ask(STRATEGIES[name](8))
    assert len(ask(STRATEGIES[name](8, candidates=5))) == 5
    assert len(ask(STRATEGIES[name](8, candidates=0.5))) == 8


@pytest.mark.parametrize("name", BY_CLASS)
def test_probabilities_are_taken_as_the_learner_says(name):
    class Sure(torch.nn.Module):
        outputs = "probabilities"

        def __init__(self):
            super().__init__()
            self.logits = make_learner()

        def forward(self, inputs):
            return self.logits(inputs).double().softmax(dim=1)

    assert ask(STRATEGIES[name](8), learner=Sure()) == ask(STRATEGIES[name](8))


# -- what each asks for ------------------------------------------------------------------------------------------------


def test_kcenter_asks_for_what_is_farthest():
    pool = make_pool()
    asked = ask(KCenterQuery(5, layer="inputs"), pool)
    inputs, known, expected = pool.inputs(torch.arange(60)), list(range(6)), []
    for _ in range(5):
        near = torch.cdist(inputs, inputs[known]).amin(dim=1)
        expected.append(int(near.argmax()))
        known.append(expected[-1])
    assert asked == expected
    assert asked.scores == sorted(asked.scores, reverse=True)


def test_distances_are_kept_while_features_stay_and_change_nothing(monkeypatch):
    from alcore_diversity import kcenter

    made = []
    whole = kcenter.NearestCenter.__init__
    monkeypatch.setattr(kcenter.NearestCenter, "__init__", lambda *a: (made.append(1), whole(*a))[1])

    def rounds(query, prepare):
        pool, learner, asked = make_pool(200), make_learner(), []
        driver = make_driver("not-made", query, pool, learner)
        for step in range(5):
            prepare(query, pool, learner, step)
            asked.append(Asked())
            query.sample(asked[-1])
            for sample in asked[-1]:
                pool.append(sample)
            driver.query_queue.put_many(asked[-1])
        return asked

    def forget(query, *_):
        query._kept = None

    def train(_query, _pool, learner, step):
        learner[0].weight.data += 0.1 * step

    def label_another(_query, pool, _learner, _step):
        pool.append(int(pool.unlabeled_indices()[3]))

    def grow(_query, pool, _learner, step):
        pool.append((torch.full((4,), float(step)), torch.tensor(0)))

    for layer, prepare, times in [
        ("", lambda *_: None, 1), ("", train, 5), ("inputs", train, 1), ("", label_another, 1), ("", grow, 5),
    ]:  # fmt: skip
        made.clear()
        kept = rounds(KCenterQuery(4, layer=layer), prepare)
        assert len(made) == times, (layer, prepare)
        fresh = rounds(KCenterQuery(4, layer=layer), lambda *a, p=prepare: (p(*a), forget(*a)))
        assert kept == fresh
        assert [asked.scores for asked in kept] == [asked.scores for asked in fresh]


def test_distances_are_not_kept_for_picks_that_were_not_labeled():
    query, pool = KCenterQuery(4), make_pool()
    make_driver("not-made", query, pool)
    first, second = Asked(), Asked()
    query.sample(first)
    query.sample(second)
    assert first == second


def test_distances_are_not_kept_for_another_driver():
    query = KCenterQuery(4, layer="inputs")
    ask(query, make_pool(seed=1))
    assert ask(query, make_pool(seed=2)) == ask(KCenterQuery(4, layer="inputs"), make_pool(seed=2))


def test_probcover_finds_its_radius_by_clusters(tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.arange(3)[torch.arange(60) % 3, None] * 50.0 + torch.randn(60, 4, generator=generator)
    asked = ask(ProbCoverQuery(3, layer="inputs", purity=1.0), make_pool(inputs=inputs, labeled=[]))
    assert sorted(sample % 3 for sample in asked) == [0, 1, 2]
    assert asked.scores == [20, 20, 20]


@pytest.mark.parametrize("query", [TypiClustQuery, ProbCoverQuery])
def test_normalized_features(query):
    angles = torch.tensor([0.0, 2, 4])[torch.arange(60) % 3] + 0.02 * torch.arange(60)
    inputs = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.linspace(0.1, 90, 60)[:, None]
    learner = torch.nn.Linear(2, 3)
    asked = ask(query(3, layer="inputs", normalize=True), make_pool(inputs=inputs, labeled=[]), learner)
    assert sorted(sample % 3 for sample in asked) == [0, 1, 2]


def test_typiclust_asks_for_a_cluster_without_labels():
    inputs = torch.arange(4)[torch.arange(60) % 4, None].repeat(1, 4) * 50.0
    inputs += torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    pool = make_pool(inputs=inputs, classes=4, labeled=[0, 1, 4])
    asked = ask(TypiClustQuery(1, layer="inputs"), pool)
    assert asked[0] % 4 in (2, 3)


def test_cluster_margin_asks_for_small_margins():
    pool, learner = make_pool(labeled=[]), make_learner()
    best = learner(pool.inputs(torch.arange(60))).softmax(dim=1).topk(2, dim=1).values
    least = (best[:, 0] - best[:, 1]).argsort()[:8].tolist()
    assert set(ask(ClusterMarginQuery(4, shortlist=2.0), pool, learner)) <= set(least)


def test_class_balance_asks_for_the_rarest_class():
    logits = torch.nn.functional.one_hot(torch.arange(60) % 3, 4).float() * torch.linspace(9, 1, 60)[:, None]
    targets = torch.arange(60) % 3
    pool = make_pool(inputs=logits, targets=targets, labeled=[0, 3, 6, 9, 1, 4])
    asked = ask(ClassBalancedQuery(4), pool, torch.nn.Identity())
    assert asked == [59, 56, 58, 53]  # two of class 2, then classes 1 and 2 stand level
    assert ask(ClassBalancedQuery(3), make_pool(inputs=logits, targets=targets, labeled=[]), torch.nn.Identity()) == [
        57, 58, 59,
    ]  # fmt: skip


def test_strata_by_class_and_by_cluster():
    logits = torch.nn.functional.one_hot(torch.tensor([0] * 40 + [1] * 15 + [2] * 5), 4).float()
    pool = make_pool(inputs=logits, labeled=[])
    for query, expected in [
        (StratifiedQuery(12), [8, 3, 1]),
        (StratifiedQuery(12, allocation="equal"), [4, 4, 4]),
        (StratifiedQuery(12, layer="inputs", strata="clusters", clusters=3), [8, 3, 1]),
    ]:
        learner = torch.nn.Identity() if query.strata == "predicted" else torch.nn.Linear(4, 3)
        asked = ask(query, pool, learner)
        assert torch.bincount(logits[asked].argmax(dim=1)).tolist() == expected


def test_the_start_has_each_class_and_leaves_the_learner_alone():
    targets = torch.tensor([0] * 57 + [1, 2, 3])
    pool = make_pool(targets=targets, labeled=[])

    class Untrained(torch.nn.Module):
        def forward(self, inputs):
            raise AssertionError("the learner is not asked")

    asked = ask(StratifiedStart(10), pool, Untrained())
    assert sorted(targets[asked].unique().tolist()) == [0, 1, 2, 3]
    assert len(asked) == 10
    assert sorted(targets[ask(StratifiedStart(4), pool)].tolist()) == [0, 1, 2, 3]
    assert len(set(targets[ask(StratifiedStart(2), pool)].tolist())) == 2
    assert ask(StratifiedStart(10), pool, step=1) != asked


def test_kcenter_typiclust_and_probcover_work_without_classes():
    for query in (KCenterQuery(5), TypiClustQuery(5), ProbCoverQuery(5), StratifiedQuery(5, strata="clusters")):
        assert len(ask(query, make_pool(targets=torch.rand(60)), make_learner(1))) == 5


@pytest.mark.parametrize(("classes", "clusters"), [(3, 3), (None, 7)])
def test_probcover_makes_as_many_clusters_as_there_are_classes_or_else_outputs(monkeypatch, classes, clusters):
    counts, k_means = [], probcover.k_means

    def counted(features, count, generator):
        counts.append(count)
        return k_means(features, count, generator)

    monkeypatch.setattr(probcover, "k_means", counted)
    pool = make_pool()
    if classes is None:
        pool.info = None
    ask(ProbCoverQuery(2), pool, make_learner(7))
    assert counts == [clusters]
