"""`max-variance` and `alc` against a Gaussian process that is conditioned anew for each candidate."""

import queue

import pytest
import torch
from alcore_regression import ALCQuery, MaxVarianceQuery
from alcore_regression.reduction import greedy
from alcore_testing import ask

from alcore import Driver, TensorPool, UsageError
from alcore import config as c
from alcore.errors import QueryError
from alcore.outputs import MCDropout


def make_driver(query, learner, inputs, *, labeled=(0,), targets=None):
    targets = torch.zeros(len(inputs)) if targets is None else targets
    return Driver(
        c.DriverConfig(
            batch_size=8, max_active_learning_steps=1, skip_training=True, root_log_dir="not-made", device="cpu", seed=0
        ),
        learner,
        c.StrategiesConfig([query], queue.Queue),
        c.TrainingConfig(TensorPool(inputs, targets, labeled=labeled), max_training_epochs=0),
    )


def net(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(*(layer() for layer in layers))


def dropout_net():
    return net(
        lambda: torch.nn.Linear(3, 16), torch.nn.SiLU, lambda: torch.nn.Dropout(0.5), lambda: torch.nn.Linear(16, 1)
    )


NOISE = 0.05
LENGTHS = (0.5, 1.5)  # of two quantities


def kernel(a, b, length):
    return torch.exp(-torch.cdist(a.double(), b.double()).square() / (2 * length**2))


class GP(torch.nn.Module):
    """Two Gaussian processes with known hyperparameters."""

    outputs = "mean-variance"

    def __init__(self, known):
        super().__init__()
        self.known = known

    def posterior_covariance(self, a, b=None):
        both = [self._joint(torch.cat([a, a if b is None else b]), length) for length in LENGTHS]
        covariance = torch.stack(both)[:, : len(a), len(a) :]
        return covariance.diagonal(dim1=1, dim2=2) if b is None else covariance

    def _joint(self, rows, length):
        among = kernel(self.known, self.known, length) + NOISE * torch.eye(len(self.known), dtype=torch.float64)
        across = kernel(rows, self.known, length)
        return kernel(rows, rows, length) - across @ torch.linalg.solve(among, across.T)

    def forward(self, inputs):
        variances = self.posterior_covariance(inputs).T + NOISE
        return torch.cat([torch.zeros_like(variances), variances], dim=1)


def points(count=25, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) * 1.5


def variances(inputs, known, at):
    """The variances (T, N) at some samples where labels of others are known, computed from nothing."""
    return GP(inputs[known]).posterior_covariance(inputs[at])


def taken(inputs, known, one, at):
    """How much the label of one more sample takes off the mean variance at others: (T,)."""
    return (variances(inputs, known, at) - variances(inputs, [*known, one], at)).mean(dim=1)


REDUCE = {"mean": lambda values: values.mean(), "max": lambda values: values.max(), "sum": lambda values: values.sum()}


def picks_by_hand(inputs, labeled, count, score):
    observed, picks = list(labeled), []
    for _ in range(count):
        left = [sample for sample in range(len(inputs)) if sample not in observed]
        scores = {sample: float(score(observed, sample)) for sample in left}
        picks.append(max(scores, key=scores.get))
        observed.append(picks[-1])
    return picks


@pytest.mark.parametrize("reduce", REDUCE)
def test_alc_asks_for_what_takes_most_off_the_mean_variance(reduce):
    inputs, labeled = points(), [3, 11]
    query = ALCQuery(6, reduce=reduce, reference=100)
    driver = make_driver(query, GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2))
    everywhere = [
        sample for sample in range(25) if sample not in labeled
    ]  # more are wanted than there are, so all are taken
    expected = picks_by_hand(
        inputs, labeled, 6, lambda known, one: REDUCE[reduce](taken(inputs, known, one, everywhere))
    )
    assert ask(driver) == expected


def test_scores_are_the_variance_that_is_taken():
    inputs, labeled = points(), [3, 11]
    query = ALCQuery(3, reference=100)
    driver = make_driver(query, GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2))
    rest = torch.tensor([sample for sample in range(25) if sample not in labeled])
    chosen, scores = query.choose(query.gather(rest), query.gather(rest[:0]), 3)
    picks = rest[chosen].tolist()
    for place, one in enumerate(picks):
        expected = taken(inputs, [*labeled, *picks[:place]], one, rest.tolist()).mean()
        assert float(scores[place]) == pytest.approx(float(expected), rel=1e-6)
    del driver


@pytest.mark.parametrize("of", ["total", "model"])
def test_max_variance_counts_earlier_picks_as_labeled(of):
    inputs, labeled = points(), [3, 11]
    driver = make_driver(
        MaxVarianceQuery(6, of=of), GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2)
    )
    expected = picks_by_hand(inputs, labeled, 6, lambda known, one: variances(inputs, known, [one]).mean())
    assert ask(driver) == expected


@pytest.mark.parametrize("query", [ALCQuery, MaxVarianceQuery])
def test_costs_divide_the_variance_that_is_taken(query):
    inputs, labeled = points(), [3, 11]
    strategy = query(4)
    driver = make_driver(strategy, GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2))
    assert driver.costs(torch.arange(3)) is None
    rest = [sample for sample in range(25) if sample not in labeled]
    costs = torch.rand(23, generator=torch.Generator().manual_seed(0)).double() + 0.1
    costs[4] = 0.0
    none = strategy.gather(torch.tensor(rest)[:0])
    chosen, _ = strategy.choose(strategy.gather(torch.tensor(rest)), none, 4, costs=costs)

    def score(known, one):
        worth = taken(inputs, known, one, rest) if query is ALCQuery else variances(inputs, known, [one]) + NOISE
        return worth.mean() / costs[rest.index(one)].clamp(min=1e-100)

    assert [rest[position] for position in chosen.tolist()] == picks_by_hand(inputs, labeled, 4, score)
    assert int(chosen[0]) == 4  # for free


@pytest.mark.parametrize("query", [ALCQuery, MaxVarianceQuery])
def test_pending_samples_count_as_labeled(query):
    inputs, labeled = points(), [3, 11]
    made = lambda: make_driver(  # noqa: E731
        query(2), GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2)
    )
    whole = query(5)
    five = ask(make_driver(whole, GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2)))
    strategy = query(5)
    driver = make_driver(strategy, GP(inputs[labeled]), inputs, labeled=labeled, targets=torch.zeros(25, 2))
    rest = torch.tensor([sample for sample in range(25) if sample not in [*labeled, *five[:2]]])
    chosen, _ = strategy.choose(
        strategy.gather(rest), strategy.gather(rest[:0]), 3, strategy.gather(torch.tensor(five[:2]))
    )
    if query is MaxVarianceQuery:
        assert rest[chosen].tolist() == five[2:]
    else:  # its reference sample is of what is left
        assert not set(rest[chosen].tolist()) & set(five[:2])
        alone, _ = strategy.choose(strategy.gather(rest), strategy.gather(rest[:0]), 3)
        assert chosen.tolist() != alone.tolist()
    assert ask(made()) == five[:2]
    del driver


def test_posterior_samples_condition_by_their_covariance():
    """Four linear models of three inputs: the covariance of their predictions by its definition."""
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))

    class Ensemble(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))

        def forward(self, rows):
            return (rows @ self.weights.T).T[:, :, None]

    samples = Ensemble()(inputs)[:, :, 0].double()
    covariance = (samples - samples.mean(dim=0)).T @ (samples - samples.mean(dim=0)) / 4
    rest = list(range(1, 20))
    noise = 0.01 * float(covariance.diagonal()[rest].mean())
    expected, now = [], covariance.clone()
    for _ in range(3):
        left = [sample for sample in rest if sample not in expected]
        best = max(left, key=lambda one: float(now[one, one]))
        expected.append(best)
        now = now - torch.outer(now[:, best], now[best]) / (now[best, best] + noise)
    assert ask(make_driver(MaxVarianceQuery(3), Ensemble(), inputs)) == expected
    best = max(rest, key=lambda one: float(covariance[one, rest].square().sum() / (covariance[one, one] + noise)))
    assert ask(make_driver(ALCQuery(1), Ensemble(), inputs)) == [best]
    assert sorted(ask(make_driver(MaxVarianceQuery(19), Ensemble(), inputs))) == rest  # more than 4 models can tell of


def test_one_network_ranks_by_the_variance_it_predicts():
    inputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    learner = net(lambda: torch.nn.Linear(3, 4), torch.nn.Softplus)
    learner.outputs = "mean-variance"
    variance = learner(inputs).detach()[1:, 2:]
    for reduce, of in REDUCE.items():
        expected = sorted(range(29), key=lambda one, of=of: -float(of(variance[one])))[:4]
        driver = make_driver(MaxVarianceQuery(4, reduce=reduce), learner, inputs, targets=torch.zeros(30, 2))
        assert ask(driver) == [sample + 1 for sample in expected]


def test_fields_are_reduced_to_one_number():
    inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))

    class Field(torch.nn.Module):
        outputs = "mean-variance"

        def forward(self, rows):
            maps = rows[:, :, None, None] * torch.arange(1.0, 7).reshape(2, 3)
            return torch.cat([maps, maps.square()], dim=1)

    largest = inputs[1:].square().amax(dim=1).argsort(descending=True)[:3] + 1
    assert ask(make_driver(MaxVarianceQuery(3, reduce="max"), Field(), inputs)) == largest.tolist()
    total = inputs[1:].square().sum(dim=1).argsort(descending=True)[:3] + 1
    assert ask(make_driver(MaxVarianceQuery(3, reduce="sum"), Field(), inputs)) == total.tolist()
    query = ALCQuery(3)
    make_driver(query, Field(), inputs)
    with pytest.raises(UsageError, match="returned fields of shape"):
        query.check()


def test_dropout_draws_the_same_models_for_all_samples():
    inputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    learner, query = dropout_net(), MaxVarianceQuery(1)
    driver = make_driver(query, learner, inputs)
    (asked,) = ask(driver)
    seed = query.generator("dropout").initial_seed()
    samples = MCDropout(learner, 20, seed)(lambda: driver.infer(inputs))[:, 1:, 0].double()
    assert asked == int(samples.var(dim=0, correction=0).argmax()) + 1


def test_what_has_no_joint_posterior_is_refused_with_a_remedy():
    inputs = torch.randn(8, 3)
    alone = net(lambda: torch.nn.Linear(3, 2), torch.nn.Softplus)
    alone.outputs = "mean-variance"
    for query in (ALCQuery(1), MaxVarianceQuery(1, of="model")):
        make_driver(query, alone, inputs)
        with pytest.raises(UsageError, match=r"mean and variance of each sample alone.*--learner gp"):
            query.check()
    query = MaxVarianceQuery(1)
    make_driver(query, net(lambda: torch.nn.Linear(3, 1)), inputs)
    with pytest.raises(UsageError, match="without a variance"):
        query.check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ALCQuery(reference=0), "reference is 0"),
        (lambda: ALCQuery(draws=1), "draws is 1"),
        (lambda: MaxVarianceQuery(noise=0.0), "noise is 0.0"),
        (lambda: MaxVarianceQuery(of="noise"), "of"),
        (lambda: MaxVarianceQuery(reduce="median"), "reduce"),
        (lambda: MaxVarianceQuery(candidates=0), "candidates is 0"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_infinite_predictions_name_the_sample():
    inputs = points()
    inputs[7] = torch.nan
    for query in (ALCQuery(2), MaxVarianceQuery(2)):
        driver = make_driver(query, GP(inputs[[3]]), inputs, labeled=[3], targets=torch.zeros(25, 2))
        with pytest.raises(QueryError, match="sample 7 is NaN"):
            ask(driver)


def test_greedy_takes_each_candidate_once_and_the_lowest_of_equals():
    added = []
    assert greedy(3, lambda: torch.tensor([1.0, 2.0, 2.0]), added.append)[0].tolist() == [1, 2, 0]
    assert added == [1, 2]
