"""The learner `deep-ensemble`: its fit, the weight decay that it chooses, its features, and runs with it."""

import math

import pytest
import torch
from alcore_bayes import DeepEnsemble
from alcore_bayes.deep_ensemble import choose_decay
from alcore_testing import LearnerContract, run_command

from alcore import DataInfo, UsageError
from alcore.outputs import class_probabilities, mean_and_variance

INFO = DataInfo("classification", features=4, classes=3)
VALUES = DataInfo("regression", features=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def three_classes(n, noise=0.0, seed=0):
    """Points around three centers, of which a share has another class."""
    drawn = generator(seed)
    targets = torch.arange(n) % 3
    inputs = torch.randn(n, 4, generator=drawn) + 3 * torch.nn.functional.one_hot(targets, 4)
    wrong = torch.rand(n, generator=drawn) < noise
    return inputs, torch.where(wrong, (targets + 1) % 3, targets)


def waves(n, noise=0.0, seed=0):
    """Points, and a smooth function of them with noise, far from mean 0 and deviation 1."""
    drawn = generator(seed)
    inputs = torch.randn(n, 4, generator=drawn)
    return inputs, 50 + 7 * (inputs[:, 0] * inputs[:, 1] + inputs[:, 2] + noise * torch.randn(n, generator=drawn))


class TestDeepEnsemble(LearnerContract):
    name = "deep-ensemble"
    trains = False

    def make(self, info):
        return DeepEnsemble(info, members=2, hidden=(8,))


class TestOfImages(TestDeepEnsemble):
    shape = (1, 3, 3)


def test_before_a_fit_and_without_labels_classes_have_equal_probabilities():
    learner = DeepEnsemble(INFO)
    learner.fit_batches([], generator())
    assert learner(torch.randn(2, 4)).eq(0).all()
    assert learner(torch.randn(2, 4)).shape == (5, 2, 3)


def test_it_learns_and_its_probabilities_are_calibrated():
    learner = DeepEnsemble(INFO)
    learner.fit_batches([three_classes(200, noise=0.2)], generator())
    inputs, targets = three_classes(2000, noise=0.2, seed=1)
    probabilities = class_probabilities(learner(inputs), "logits")
    largest, predicted = probabilities.max(dim=1)
    assert predicted.eq(targets).float().mean() > 0.72  # 0.76 for the true centers
    assert abs(predicted.eq(targets).double().mean() - largest.double().mean()) < 0.06


@pytest.mark.parametrize("noise", [0.1, 1.0])
@pytest.mark.parametrize("n", [60, 400])
def test_intervals_of_values_hold_what_they_say(n, noise):
    learner = DeepEnsemble(VALUES)
    learner.fit_batches([waves(n, noise)], generator())
    inputs, targets = waves(2000, noise, seed=1)
    predicted = mean_and_variance(learner(inputs), "mean-variance")
    errors = predicted.mean[:, 0] - targets
    assert learner(inputs).shape == (5, 2000, 2)
    assert errors.var() < 0.75 * targets.var()
    held = (errors.abs() <= 1.645 * predicted.variance[:, 0].sqrt()).double().mean()
    assert 0.8 <= held <= 0.985


def test_values_have_mean_0_and_variance_1_before_a_fit():
    outputs = DeepEnsemble(VALUES)(torch.randn(2, 4))
    assert outputs[..., 0].eq(0).all()
    assert outputs[..., 1].eq(1).all()


def test_units_of_the_labels_are_those_of_the_predictions():
    inputs, targets = waves(40, 0.3)
    plain, other = DeepEnsemble(VALUES), DeepEnsemble(VALUES)
    plain.fit_batches([(inputs, targets)], generator())
    other.fit_batches([(inputs, 1000 * targets - 3)], generator())
    mean, variance = plain(inputs).unbind(-1)
    torch.testing.assert_close(other(inputs), torch.stack([1000 * mean - 3, 1e6 * variance], -1), rtol=1e-2, atol=10)


def test_quantities_have_a_noise_each():
    inputs, targets = waves(200)
    noisy = targets + 7 * torch.randn(200, generator=generator(5))
    learner = DeepEnsemble(DataInfo("regression", features=4, target_shape=(2,)))
    learner.fit_batches([(inputs, torch.stack([targets, noisy], dim=1))], generator())
    outputs = learner(inputs)
    assert outputs.shape == (5, 200, 4)
    assert outputs[0, 0, 2] < outputs[0, 0, 3] / 2


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_and_equal_values_are_fitted(n):
    for targets in (torch.full((n,), 3.0), torch.arange(n) * 1e-3 + 1e3):
        learner = DeepEnsemble(VALUES)
        learner.fit_batches([(torch.randn(n, 4, generator=generator()), targets)], generator())
        outputs = learner(torch.randn(5, 4))
        assert outputs.isfinite().all()
        assert outputs[..., 1].gt(0).all()


@pytest.mark.parametrize("info", [INFO, VALUES], ids=["classes", "values"])
@pytest.mark.parametrize("n", [1, 2, 50, 300, 700])
def test_same_seed_gives_the_same_weights_and_another_one_others(n, info):
    batch = three_classes(n) if info is INFO else waves(n)
    weights = []
    for seed in (0, 0, 1):
        learner = DeepEnsemble(info, members=2, hidden=(8,))
        learner.fit_batches([batch], generator(seed))
        weights.append(learner.weights_0)
    assert weights[0].isfinite().all()
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


@pytest.mark.parametrize("info", [INFO, VALUES], ids=["classes", "values"])
def test_batches_do_not_matter(info):
    inputs, targets = three_classes(90) if info is INFO else waves(90)
    whole, parts = (DeepEnsemble(info, members=2, hidden=(8,)) for _ in range(2))
    whole.fit_batches([(inputs, targets)], generator())
    parts.fit_batches(zip(inputs.split(32), targets.split(32), strict=True), generator())
    assert all(a.equal(b) for a, b in zip(whole.buffers(), parts.buffers(), strict=True))


def test_noisy_labels_get_a_larger_weight_decay():
    chosen = []
    for noise in (0.0, 0.5):
        learner = DeepEnsemble(INFO, weight_decay=(0.1, 1.0, 10.0))
        learner.fit_batches([three_classes(90, noise)], generator())
        chosen.append(round(float(learner.chosen_decay), 5))
    assert chosen[0] < chosen[1]
    assert set(chosen) <= {0.1, 1.0, 10.0}


def test_where_no_label_is_out_of_bag_the_largest_decay_is_taken():
    inputs, targets = three_classes(1)
    assert choose_decay(inputs, targets, (4, 8, 3), (0.1, 2.0, 1.0), generator()) == 2.0


def test_one_decay_is_not_chosen():
    learner = DeepEnsemble(INFO, weight_decay=(0.3,))
    learner.fit_batches([three_classes(30)], generator())
    assert float(learner.chosen_decay) == pytest.approx(0.3)


def test_a_fit_lowers_the_penalized_loss_of_its_own_decay():
    """Of networks that are fitted with other weight decays, none has less of what the docstring says."""
    inputs, targets = three_classes(60, noise=0.3)

    def fitted(decay):
        learner = DeepEnsemble(INFO, members=1, hidden=(16,), weight_decay=(decay,))
        learner.fit_batches([(inputs, targets)], generator())
        return learner

    def loss(learner, decay):
        squares = learner.weights_0.square().sum() + learner.weights_1.square().sum()
        return float(torch.nn.functional.cross_entropy(learner(inputs)[0], targets) + decay / 120 * squares)

    decays = (0.1, 1.0, 10.0)
    learners = [fitted(decay) for decay in decays]
    for place, decay in enumerate(decays):
        losses = [loss(learner, decay) for learner in learners]
        assert min(losses) == losses[place]


def test_features_are_what_the_last_layers_get():
    learner = DeepEnsemble(INFO, members=2, hidden=(8,))
    inputs, targets = three_classes(30)
    learner.fit_batches([(inputs, targets)], generator())
    features = learner.features(inputs)
    assert features.shape == (30, 16)
    hidden = (features * math.sqrt(2)).reshape(30, 2, 8).movedim(1, 0)
    torch.testing.assert_close(torch.baddbmm(learner.biases_1, hidden, learner.weights_1), learner(inputs))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"members": 0}, "members is 0"),
        ({"hidden": ()}, "hidden is []"),
        ({"hidden": (8, 0)}, "hidden is [8, 0]"),
        ({"weight_decay": ()}, "weight_decay is []"),
        ({"weight_decay": (-1.0,)}, "weight_decay is [-1.0]"),
        ({"weight_decay": (math.nan,)}, "weight_decay is [nan]"),
        ({"info": VALUES, "members": 1}, "members is 1; at least 2"),
        ({"info": DataInfo("regression", features=4, target_shape=(2, 3))}, "labels of shape (2, 3)"),
        ({"info": DataInfo("classification", classes=3)}, "number of features"),
    ],
)
def test_what_has_no_meaning_is_refused(given, words):
    with pytest.raises(UsageError) as raised:
        DeepEnsemble(**{"info": INFO, **given})
    assert words in str(raised.value)


@pytest.mark.parametrize("query", ["uq", "bald", "badge", "kcenter", "typiclust"])
def test_strategies_choose_with_it_and_predictions_leave_the_run(tmp_path, query):
    words = ["--learner", "deep-ensemble", "--query", query]
    done = run_command(tmp_path, "run", *words, "--metrology", "f1", "--steps", "2", "--run-id", "first")
    assert done.code == 0, done.err
    assert run_command(tmp_path, "export", "first", "--output", "out").code == 0
    assert (tmp_path / "out" / "predict.py").is_file()


@pytest.mark.parametrize("query", ["max-variance", "alc", "variance", "igs"])
def test_strategies_of_regressions_choose_with_it(tmp_path, query):
    inputs, targets = waves(90, 0.1)
    rows = [",".join(f"{value:.5f}" for value in row) for row in torch.cat([inputs, targets[:, None]], dim=1).tolist()]
    (tmp_path / "waves.csv").write_text("\n".join(["a,b,c,d,y", *rows]))
    words = ["waves.csv", "--target", "y", "--learner", "deep-ensemble", "--query", query, "--metrology", "uncertainty"]
    done = run_command(tmp_path, "run", *words, "--steps", "2", "--run-id", "first")
    assert done.code == 0, done.err
    assert run_command(tmp_path, "predict", "first", "waves.csv", "--output", "predicted.csv").code == 0
    assert "low" in (tmp_path / "predicted.csv").read_text().splitlines()[0]
