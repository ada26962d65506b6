"""BatchBALD against enumerated joint entropies, exactly and sampled."""

import itertools
import math

import numpy as np
import pytest
import torch
from alcore_bayes import batch_bald
from alcore_bayes import batchbald as module
from alcore_bayes.batchbald import Configurations
from alcore_testing import peak_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from alcore import UsageError
from alcore.errors import QueryError
from alcore.outputs import bald


def entropy(p):
    return -sum(share * math.log(share) for share in p if share > 0)


def information(p, batch):
    """Return I(y_1 ... y_n; k) of a batch by enumerating all joint classes; p is (K, N, C), as nested lists."""
    members, classes = len(p), len(p[0][0])
    joint = [
        math.fsum(math.prod(member[x][y] for x, y in zip(batch, labels, strict=True)) for member in p) / members
        for labels in itertools.product(range(classes), repeat=len(batch))
    ]
    return entropy(joint) - sum(math.fsum(entropy(member[x]) for member in p) / members for x in batch)


def posterior(seed, samples, n, classes, scale=1.5, shared=1.0):
    draw = torch.Generator().manual_seed(seed)
    values = shared * torch.randn(1, n, classes, generator=draw, dtype=torch.float64)
    return values + scale * torch.randn(samples, n, classes, generator=draw, dtype=torch.float64)


def both_classes(outputs):
    p = outputs.softmax(dim=2) if outputs.shape[2] > 1 else torch.cat([torch.sigmoid(-outputs), outputs.sigmoid()], 2)
    return p.tolist()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(2, 5),
    size=st.integers(1, 7),
    classes=st.integers(1, 3),
    n=st.integers(0, 5),
    repeated=st.booleans(),
    scale=st.sampled_from([0.1, 1.5, 20.0]),
)
def test_each_choice_adds_most_information_by_enumeration(seed, samples, size, classes, n, repeated, scale):
    outputs = posterior(seed, samples, size, classes, scale)
    if repeated:
        outputs = outputs.repeat_interleave(2, dim=1)
    p = both_classes(outputs)
    chosen, gains = batch_bald(outputs, n)
    assert len(chosen) == len(gains) == min(n, len(p[0]))
    assert len(set(chosen.tolist())) == len(chosen)
    batch, before = [], 0.0
    for position, gain in zip(chosen.tolist(), gains.tolist(), strict=True):
        added = {x: information(p, [*batch, x]) - before for x in range(len(p[0])) if x not in batch}
        best = max(added.values())
        assert gain == pytest.approx(added[position], abs=1e-9)
        assert gain == pytest.approx(best, abs=1e-9)
        clear = [x for x, value in added.items() if value > best - 1e-14]
        assert position <= min(clear)  # equal ones go by position, what rounding parts counted as equal
        batch.append(position)
        before = information(p, batch)


def test_the_first_choice_is_that_of_bald():
    outputs = posterior(1, 20, 300, 10)
    chosen, gains = batch_bald(outputs, 1)
    scores = bald(outputs)
    assert chosen.tolist() == [int(scores.argmax())]
    assert gains.tolist() == pytest.approx([scores.max().item()], abs=1e-12)


def test_duplicates_are_not_chosen_twice_while_others_tell_more():
    outputs = posterior(2, 10, 20, 3).repeat(1, 3, 1)
    chosen = batch_bald(outputs, 5)[0]
    assert len(set((chosen % 20).tolist())) == 5
    assert set(bald(outputs).argsort(descending=True, stable=True)[:3].tolist()) == {
        int(chosen[0]) + 20 * copy for copy in range(3)
    }  # which BALD takes three times


def test_ties_go_by_position():
    assert batch_bald(torch.zeros(4, 30, 3), 5)[0].tolist() == [0, 1, 2, 3, 4]
    outputs = posterior(3, 6, 1, 4).expand(-1, 30, -1)
    assert batch_bald(outputs, 5)[0].tolist() == [0, 1, 2, 3, 4]
    assert batch_bald(outputs.float(), 5, num_samples=3)[0].tolist() == [0, 1, 2, 3, 4]


def test_bounds_spare_work_and_change_nothing(monkeypatch):
    outputs = posterior(4, 20, 200, 4, shared=4.0)
    looked_at = []
    information_ = module._information

    def counted(p, entropies, known):
        looked_at.append(p.shape[1])
        return information_(p, entropies, known)

    monkeypatch.setattr(module, "_information", counted)
    monkeypatch.setattr(module, "_COLUMNS", 40)
    lazy = batch_bald(outputs, 6)
    assert sum(looked_at) < 5 * 150
    monkeypatch.setattr(module, "_COLUMNS", 2**30)
    looked_at.clear()
    full = batch_bald(outputs, 6)
    assert sum(looked_at) > 5 * 190
    assert torch.equal(lazy[0], full[0])
    torch.testing.assert_close(lazy[1], full[1], rtol=0, atol=1e-12)


def test_single_precision_and_blocks_are_within_rounding(monkeypatch):
    outputs = posterior(5, 20, 100, 5)
    exact = batch_bald(outputs, 5)
    monkeypatch.setattr(module, "_BLOCK", 1)
    blocked = batch_bald(outputs.float(), 5)
    assert torch.equal(blocked[0], exact[0])
    torch.testing.assert_close(blocked[1], exact[1], rtol=0, atol=1e-6)


# -- sampled configurations --------------------------------------------------------------------------------------------


def test_all_configurations_are_enumerated_while_they_are_few():
    p = posterior(6, 4, 3, 3).softmax(dim=2)
    configurations = Configurations(4, 27, torch.Generator())
    for x in range(3):
        configurations.extend(p[:, x])
    assert configurations.exact
    labels = list(itertools.product(range(3), repeat=3))
    likelihood = torch.stack([p[:, 0, a] * p[:, 1, b] * p[:, 2, c] for a, b, c in labels])  # (27, K)
    torch.testing.assert_close(configurations.probability, likelihood.mean(dim=1))
    torch.testing.assert_close(configurations.weights, likelihood / likelihood.sum(dim=1, keepdim=True))


def test_impossible_configurations_are_dropped():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    configurations = Configurations(2, 1000, torch.Generator())
    for count in (2, 4, 8):
        configurations.extend(p)
        assert len(configurations.probability) == count
        assert not configurations.weights.isnan().any()
    assert configurations.exact


def test_sampled_configurations_are_unbiased():
    """The mean weights of the models stay 1/K, and the probability of each configuration is met on average."""
    p = posterior(7, 3, 3, 3).softmax(dim=2)
    exact = Configurations(3, 10**6, torch.Generator())
    for x in range(3):
        exact.extend(p[:, x])
    draws = 800
    means, frequencies = torch.zeros(draws, 3, dtype=torch.float64), torch.zeros(draws, 27, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for draw in range(draws):
        configurations = Configurations(3, 8, generator)
        for x in range(3):
            configurations.extend(p[:, x])
        assert not configurations.exact
        assert len(configurations.probability) <= 8
        means[draw] = configurations.probability @ configurations.weights
        # A configuration is known by the weights that it leaves the models
        frequencies[draw].index_add_(
            0, torch.cdist(configurations.weights, exact.weights).argmin(dim=1), configurations.probability
        )
    independent = torch.sqrt(exact.probability @ (exact.weights - 1 / 3) ** 2 / 8)
    assert (means.std(dim=0) < independent).all()  # as it would not be if all had one quantile of the class
    for drawn, expected in ((means, torch.full((3,), 1 / 3)), (frequencies, exact.probability)):
        deviation = torch.maximum(drawn.std(dim=0), torch.sqrt(expected / 8)) / math.sqrt(draws)
        assert ((drawn.mean(dim=0) - expected).abs() < 4.5 * deviation).all()  # by chance for one seed in 5,000


@pytest.mark.parametrize("seed", range(4))
def test_sampled_gains_are_near_the_exact_ones(seed):
    """With 500 of 4^5 configurations: each gain within 0.01 nats, the whole batch within 1 % of exact greedy choice."""
    outputs = posterior(10 + seed, 10, 60, 4)
    p = both_classes(outputs)
    chosen, gains = batch_bald(outputs.float(), 6, num_samples=500, generator=torch.Generator().manual_seed(seed))
    exact, exact_gains = batch_bald(outputs, 6, num_samples=4**5)
    batch = chosen.tolist()
    true = np.diff([0.0, *(information(p, batch[: count + 1]) for count in range(6))])
    np.testing.assert_allclose(gains.numpy(), true, rtol=0, atol=0.01)
    assert information(p, batch) > 0.99 * exact_gains.sum().item()
    assert information(p, exact.tolist()) == pytest.approx(exact_gains.sum().item(), abs=1e-9)


def test_errors_of_sampling_cancel():
    """With the sampled weights in both terms, errors are below half of those with 1/K in the second one."""
    p = posterior(15, 10, 80, 4).softmax(dim=2)
    entropies = module._entropies(p)
    exact, batch = Configurations(10, 4**6, torch.Generator()), range(6)
    for x in batch:
        exact.extend(p[:, x])
    true = module._information(p, entropies, exact)
    ours, plain = [], []
    for seed in range(6):
        configurations = Configurations(10, 200, torch.Generator().manual_seed(seed))
        for x in batch:
            configurations.extend(p[:, x])
        gains = module._information(p, entropies, configurations)
        second_term = configurations.probability @ configurations.weights @ entropies
        ours.append((gains - true).std())
        plain.append((gains + second_term - entropies.mean(dim=0) - true).std())
    assert sum(ours) < 0.5 * sum(plain)


def test_the_generator_decides_what_is_sampled():
    outputs = posterior(20, 10, 200, 5).float()

    def run(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return batch_bald(outputs, 8, num_samples=40, generator=generator)[1].tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert run(None) == run(None)


def test_memory_does_not_hold_configurations_times_candidates():
    outputs = posterior(21, 20, 1500, 10).float().softmax(dim=2)
    with peak_memory() as memory:
        batch_bald(outputs, 5, "probabilities", num_samples=2000)
    assert memory.peak < 6e6  # 1500 x 2000 numbers in single precision are 12e6 bytes, with the classes 120e6


# -- the edges ---------------------------------------------------------------------------------------------------------


def test_batch_bald_of_no_candidates_is_empty():
    for shape, n in (((3, 0, 4), 5), ((3, 4, 4), 0)):
        chosen, gains = batch_bald(torch.zeros(shape), n)
        assert chosen.dtype == torch.int64
        assert gains.dtype == torch.float64
        assert len(chosen) == len(gains) == 0


def test_certain_models_that_differ():
    outputs = torch.tensor([[[1.0, 0], [1, 0], [0, 1]], [[0, 1], [0, 1], [0, 1]]])
    chosen, gains = batch_bald(outputs, 3, "probabilities")
    assert chosen.tolist() == [0, 1, 2]
    assert gains.tolist() == pytest.approx([math.log(2), 0, 0], abs=1e-12)


def test_nan_is_refused_by_position():
    outputs = torch.zeros(3, 9, 2)
    outputs[1, 4, 0] = outputs[2, 7, 1] = torch.nan
    with pytest.raises(QueryError, match="candidate 4, 7 hold NaN"):
        batch_bald(outputs, 2)


def test_bad_parameters():
    with pytest.raises(UsageError, match="num_samples is 0"):
        batch_bald(torch.zeros(2, 3, 4), 2, num_samples=0)


def test_outputs_and_global_generators_are_left_alone():
    outputs = posterior(22, 5, 50, 4).float().softmax(dim=2)
    before, state = outputs.clone(), torch.get_rng_state()
    batch_bald(outputs, 6, "probabilities", num_samples=30)
    assert torch.equal(outputs, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_bald_calls_safe_point():
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        batch_bald(posterior(23, 5, 50, 4), 3, safe_point=stop)
