"""`max-variance` and `alc` where labels have a fidelity: what is to be learned are predictions at the highest one."""

import queue

import pytest
import torch
from alcore_regression import ALCQuery, MaxVarianceQuery
from alcore_regression.joint import joint_posterior

from alcore import Driver, TensorPool, UsageError
from alcore import config as c

COUNT, NOISE = 24, 0.05
LABELED = [3, 11]


class Meshes(TensorPool):
    """Samples whose second input is the fidelity, from 0 to 1."""

    def at_highest_fidelity(self, samples):
        moved = self.inputs(samples).clone()
        moved[:, 1] = 1.0
        return moved


class GP(torch.nn.Module):
    """A Gaussian process with known hyperparameters."""

    outputs = "mean-variance"

    def __init__(self, known):
        super().__init__()
        self.known = known.double()

    def posterior_covariance(self, a, b=None):
        rows = torch.cat([a, a if b is None else b]).double()
        kernel = lambda p, q: torch.exp(-torch.cdist(p, q).square() / 2)  # noqa: E731
        across = kernel(rows, self.known)
        among = kernel(self.known, self.known) + NOISE * torch.eye(len(self.known), dtype=torch.float64)
        covariance = (kernel(rows, rows) - across @ torch.linalg.solve(among, across.T))[None, : len(a), len(a) :]
        return covariance.diagonal(dim1=1, dim2=2) if b is None else covariance

    def forward(self, inputs):
        variances = self.posterior_covariance(inputs).T + NOISE
        return torch.cat([torch.zeros_like(variances), variances], dim=1)


def inputs_of(levels=4):
    made = torch.Generator().manual_seed(0)
    levels = torch.randint(levels, (COUNT,), generator=made) / max(1, levels - 1)
    return torch.stack([2 * torch.randn(COUNT, generator=made), levels], dim=1)


def choose(query, learner, inputs, costs=None, pending=()):
    driver = Driver(
        c.DriverConfig(batch_size=8, max_active_learning_steps=1, skip_training=True, device="cpu", seed=0),
        learner,
        c.StrategiesConfig([query], queue.Queue),
        c.TrainingConfig(Meshes(inputs, torch.zeros(COUNT), labeled=LABELED), max_training_epochs=0),
    )
    ids = torch.tensor([sample for sample in range(COUNT) if sample not in [*LABELED, *pending]])
    waiting = query.gather(torch.tensor(pending, dtype=torch.int64))
    chosen, scores = query.choose(query.gather(ids), query.gather(ids[:0]), 5, waiting, costs)
    del driver
    return ids[chosen].tolist(), scores


def picked_by_hand(inputs, query, costs, pending):
    """Condition a process anew for each candidate, and look at the highest fidelity alone."""
    observed = [*LABELED, *pending]
    ids = [sample for sample in range(COUNT) if sample not in observed]
    top = inputs.clone()
    top[:, 1] = 1.0

    everywhere = [
        sample for sample in range(COUNT) if sample not in LABELED
    ]  # the driver of these tests knows of none pending

    def taken(one):
        at = top[everywhere] if isinstance(query, ALCQuery) else top[[one]]
        before, after = (GP(inputs[rows]).posterior_covariance(at) for rows in (observed, [*observed, one]))
        return float((before - after).mean() / (1 if costs is None else costs[ids.index(one)]))

    picks, scores = [], []
    for _ in range(5):
        left = {sample: taken(sample) for sample in ids if sample not in picks}
        picks.append(max(left, key=left.get))
        scores.append(left[picks[-1]])
        observed.append(picks[-1])
    return picks, scores


@pytest.mark.parametrize("pending", [(), (5, 20)], ids=["none pending", "pending"])
@pytest.mark.parametrize("weighs", [False, True], ids=["score", "score per cost"])
@pytest.mark.parametrize("query", [ALCQuery, MaxVarianceQuery])
def test_what_counts_is_the_variance_at_the_highest_fidelity(query, weighs, pending):
    inputs, strategy = inputs_of(), query(5)
    left = [sample for sample in range(COUNT) if sample not in [*LABELED, *pending]]
    costs = 4 ** (3 * inputs[left, 1].double()) if weighs else None
    picks, scores = choose(strategy, GP(inputs[LABELED]), inputs, costs, pending)
    expected = picked_by_hand(inputs, strategy, costs, pending)
    assert picks == expected[0]
    assert scores.tolist() == pytest.approx(expected[1], rel=1e-6)


def test_with_one_fidelity_alc_chooses_as_without():
    inputs = inputs_of(levels=1)
    inputs[:, 1] = 1.0
    learner = GP(inputs[LABELED])
    with_fidelity, _ = choose(ALCQuery(5), learner, inputs)
    Meshes.at_highest_fidelity, own = lambda _self, _samples: None, Meshes.at_highest_fidelity
    try:
        assert choose(ALCQuery(5), learner, inputs)[0] == with_fidelity
    finally:
        Meshes.at_highest_fidelity = own


class Members(torch.nn.Module):
    """Posterior samples of two quantities."""

    def __init__(self, count=6):
        super().__init__()
        self.members = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh()) for _ in range(count)
        )

    def forward(self, inputs):
        return torch.stack([member(inputs)[:, :2] for member in self.members])


def test_of_posterior_samples_the_covariance_with_the_highest_fidelity_counts():
    inputs = inputs_of()
    torch.manual_seed(0)
    learner = Members()
    picks, scores = choose(MaxVarianceQuery(5, reduce="sum", noise=0.01), learner, inputs)
    top = inputs.clone()
    top[:, 1] = 1.0
    left = [sample for sample in range(COUNT) if sample not in LABELED]
    with torch.no_grad():
        own, highest = learner(inputs[left]).double(), learner(top[left]).double()
    own, highest = own - own.mean(dim=0), highest - highest.mean(dim=0)
    variance = torch.cat([own, highest], dim=1).square().mean(dim=0)
    label = own.square().mean(dim=0) + 0.01 * variance.mean(dim=0)
    expected = ((own * highest).mean(dim=0).square() / label).sum(dim=1)
    assert picks[0] == left[int(expected.argmax())]
    assert float(scores[0]) == pytest.approx(float(expected.max()), rel=1e-6)


def test_pairs_are_the_diagonal_of_all_covariances(monkeypatch):
    monkeypatch.setattr("alcore_regression.joint._PAIRS", 5)
    query = MaxVarianceQuery(1)
    for learner in (GP(inputs_of()[LABELED]), Members()):
        driver = Driver(
            c.DriverConfig(batch_size=8, max_active_learning_steps=1, skip_training=True, device="cpu", seed=0),
            learner,
            c.StrategiesConfig([query], queue.Queue),
            c.TrainingConfig(TensorPool(inputs_of(), torch.zeros(COUNT), labeled=LABELED), max_training_epochs=0),
        )
        joint = joint_posterior(driver, torch.arange(COUNT), 2, 0, 0.01)
        a, b = torch.arange(12), torch.arange(12, 24)
        torch.testing.assert_close(joint.paired(a, b), joint.covariance(a, b).diagonal(dim1=1, dim2=2))


def test_more_covariances_than_fit_in_memory_are_refused(monkeypatch):
    monkeypatch.setattr("alcore_regression.reduction._MOST_NUMBERS", 400)
    with pytest.raises(UsageError, match=r"22 candidates with 22 reference samples, for 1 quantities.*smaller \(--set"):
        choose(ALCQuery(5), GP(inputs_of()[LABELED]), inputs_of())
