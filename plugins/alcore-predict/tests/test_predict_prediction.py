"""`predict`: what is predicted for a new file, with which weights, and what is said where that can't be done."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from alcore_predict import predict
from alcore_predict.standalone import quantities

from alcore import Data, DataInfo, TensorPool
from alcore.errors import UsageError
from alcore.experiment import build as build_driver
from alcore.experiment import resolve
from alcore.inference import predictive
from alcore.outputs import bald, mc_dropout, mean_and_variance
from alcore.store import Run


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Five inputs of two features."""
    np.savez(tmp_path / "new.npz", inputs=np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32))
    return tmp_path / "new.npz"


def inputs_of(path: Path) -> torch.Tensor:
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["inputs"])


@pytest.fixture
def run(build) -> Run:
    """A run that was built in Python."""
    driver = build(max_active_learning_steps=2)
    driver.run()
    return Run(driver.log_dir)


def test_classes_are_those_of_the_trained_learner(build, toys, new: Path) -> None:
    driver = build(max_active_learning_steps=2)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=toys.learner(7))
    positive = torch.sigmoid(driver.infer(inputs_of(new)).double())[:, 0]
    assert torch.allclose(torch.from_numpy(made.probabilities[:, 1]), positive)
    assert made.values.tolist() == (positive > 0.5).long().tolist()
    shares = made.probabilities
    assert np.allclose(made.entropy, -(shares * np.log(shares)).sum(axis=1))
    assert (made.step, made.mutual_information, made.posterior) == (1, None, None)


def test_step_chooses_the_weights_that_it_trained(build, toys, new: Path) -> None:
    weights = []

    class Keep:
        def __call__(self, model, optimizer, train_dataloader, max_epochs, **arguments):
            torch.nn.init.normal_(model.weight)
            weights.append(model.weight.detach().clone())

    driver = build(train_loop_fn=Keep(), max_active_learning_steps=3)
    driver.run()
    run = Run(driver.log_dir)
    for step in range(3):
        logit = inputs_of(new) @ weights[step].T + driver.learner.bias
        made = predict(run, new, step=step, learner=toys.learner())
        assert np.allclose(made.probabilities[:, 1], torch.sigmoid(logit)[:, 0].detach())
    with pytest.raises(UsageError, match=r"those of 0 to 2\. Give --step 2"):
        predict(run, new, step=7, learner=toys.learner())


def test_run_that_is_under_way_predicts(build, toys, new: Path) -> None:
    steps = []

    class During(toys.CountMetrology):
        def compute(self, *args, **kwargs):
            steps.append(predict(Run(self.driver.log_dir), new, learner=toys.learner()).step)
            super().compute()

    build(metrology_strategies=[During()], max_active_learning_steps=3).run()
    assert steps == [None, 0, 1]


def test_run_built_in_python_says_how_to_name_its_learner(run: Run, new: Path) -> None:
    with pytest.raises(UsageError, match=r"--learner package\.module:name"):
        predict(run, new)


def test_run_built_in_python_takes_the_preprocessing_of_its_data(run: Run, toys, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("1.5 -2.5")
    made = predict(run, tmp_path / "new.txt", learner=toys.learner(), preprocessing=Mean({"mean": 0.5}))
    np.savez(tmp_path / "new.npz", inputs=np.array([[1.0, 1.0], [-3.0, -3.0]]))
    same = predict(run, tmp_path / "new.npz", learner=toys.learner())
    assert np.array_equal(made.probabilities, same.probabilities)


class Committee(torch.nn.Module):
    """Three members with one output column."""

    def __init__(self) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(torch.nn.Linear(2, 1) for _ in range(3))

    def forward(self, inputs):
        return torch.stack([member(inputs) for member in self.members])

    def training_step(self, batch):
        return self(batch[0]).square().mean()


def test_committee_gives_its_disagreement(build, new: Path) -> None:
    driver = build(learner=Committee(), max_active_learning_steps=1)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=Committee())
    outputs = driver.infer(inputs_of(new))
    assert np.allclose(made.mutual_information, bald(outputs))
    assert np.allclose(made.probabilities[:, 1], torch.sigmoid(outputs)[:, :, 0].mean(dim=0))
    assert (made.posterior, made.samples) == ("the learner", 3)


def dropping() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))


def regression(toys) -> TensorPool:
    pool = toys.pool()
    targets = pool.inputs(torch.arange(40))[:, 0] * 2
    return TensorPool(pool.inputs(torch.arange(40)), targets, range(8), DataInfo("regression", 0, 2, (2,)))


def test_regression_with_dropout_has_standard_deviations(build, toys, new: Path, tmp_path: Path) -> None:
    driver = build(learner=dropping(), train_datapool=regression(toys), max_active_learning_steps=1)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=dropping())
    assert np.array_equal(made.values, driver.infer(inputs_of(new))[:, 0])
    samples = mc_dropout(driver.learner, inputs_of(new), 20, 0)
    assert np.allclose(made.std, samples.double().std(dim=0, correction=0)[:, 0])
    again = predict(Run(driver.log_dir), new, learner=dropping())
    assert np.array_equal(made.std, again.std)
    made.write(tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [int(row["row"]) for row in rows] == [0, 1, 2, 3, 4]
    assert [float(row["std"]) for row in rows] == made.std.tolist()
    assert [np.float32(row["prediction"]) for row in rows] == made.values.tolist()


class Field(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 12)

    def forward(self, inputs):
        return self.layer(inputs).reshape(-1, 1, 3, 4)


def test_fields_are_arrays_and_no_table(build, new: Path, tmp_path: Path) -> None:
    info = DataInfo("regression", 0, 2, (2,))
    pool = TensorPool(torch.randn(20, 2), torch.randn(20, 1, 3, 4), range(8), info)
    driver = build(learner=Field(), train_datapool=pool, max_active_learning_steps=1)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=Field())
    with pytest.raises(UsageError, match=r"--output FILE\.npz"):
        list(made.rows())
    made.write(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        assert torch.equal(torch.from_numpy(arrays["values"]), driver.infer(inputs_of(new)))


class Mean:
    """Preprocessing of lines with one number each."""

    def __init__(self, description):
        self.description = description

    def describe(self):
        return self.description

    def read(self, path):
        return torch.tensor([[float(line) - self.description["mean"]] * 2 for line in path.read_text().split()])


def lines(mean: float = 0.1 + 0.2) -> Data:
    info = DataInfo("classification", 2, 2, (2,), ("low", "high"))
    pool = TensorPool(torch.randn(20, 2), torch.arange(20) % 2, range(8), info)
    return Data(pool, info=info, preprocessing=Mean({"mean": mean}))


lines.preprocessing_from = Mean


@pytest.fixture
def of_lines(registry, chosen, monkeypatch, tmp_path: Path):
    """A function that runs a step on data with preprocessing, and returns the driver."""
    registry.plugins[0].offers["data"]["moons"] = lines
    monkeypatch.setattr("alcore.experiment.trained.installed", lambda: registry)

    def make(name: str, *sets: str):
        sets = (f"driver.root_log_dir={tmp_path}", "driver.max_active_learning_steps=1", *sets)
        driver = build_driver(resolve(chosen(*sets, metrology=[], query=["q"]), registry), run_id=name)
        driver.session().__enter__()
        return driver

    return make


def test_preprocessing_is_kept_with_the_run_and_made_again(of_lines, tmp_path: Path) -> None:
    driver = of_lines("lines", "data.moons.mean=0.7")
    (tmp_path / "new.txt").write_text("1.5 -2.5")
    made = predict(Run(driver.log_dir), tmp_path / "new.txt")
    outputs = driver.infer(torch.tensor([[1.5 - 0.7] * 2, [-2.5 - 0.7] * 2]))
    assert np.allclose(made.probabilities[:, 1], torch.sigmoid(outputs)[:, 0])
    first = next(made.rows())
    assert first["prediction"] == ("low", "high")[int(made.values[0])]
    assert first["p(high)"] == made.probabilities[0, 1]
    assert json.loads(json.dumps(made.as_json()))["classes"] == ["low", "high"]
    assert Run(driver.log_dir).preprocessing() == {"mean": 0.7}
    assert "preprocessing" not in Run(driver.log_dir).meta()


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"inputs": np.zeros((3, 5))}, r"the shape \(3, 5\); the run's inputs need \('N', 2\)"),
        ({"inputs": np.array(["a"])}, "numbers are needed"),
        ({"inputs": np.array([{}], dtype=object)}, "Object arrays cannot be loaded"),
        ({"a": np.zeros((3, 2)), "b": np.zeros(3)}, "there is no array 'inputs' or 'X'"),
        ({"inputs": np.zeros((0, 2))}, "no rows"),
        (
            {"inputs": np.zeros((3, 2), dtype=np.int64)},
            r"can't take the inputs of new\.npz, torch\.int64 of shape \(2,\)",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run: Run, toys, tmp_path: Path, arrays, fault: str) -> None:
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(UsageError, match=fault):
        predict(run, tmp_path / "new.npz", learner=toys.learner())


def test_damaged_checkpoint_is_refused(run: Run, toys, new: Path) -> None:
    path = run.folder / "ckpt" / run.checkpoints()[-1]["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="damaged"):
        predict(run, new, learner=toys.learner())


@pytest.mark.parametrize(("name", "fault"), [("p.txt", ".csv, .json, .npz"), ("no/p.csv", "there is no folder")])
def test_output_that_cannot_be_written_is_refused(run: Run, toys, new: Path, tmp_path: Path, name, fault) -> None:
    with pytest.raises(UsageError, match=fault):
        predict(run, new, learner=toys.learner()).write(tmp_path / name)


class Gaussian(torch.nn.Module):
    """Predicts means and variances, of one model or of three."""

    outputs = "mean-variance"

    def __init__(self, members: int = 1) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(members))

    def forward(self, inputs):
        raw = [layer(inputs) for layer in self.layers]
        each = [torch.cat([member[:, :1], torch.nn.functional.softplus(member[:, 1:]) + 0.1], dim=1) for member in raw]
        return each[0] if len(each) == 1 else torch.stack(each)

    def training_step(self, batch):
        return self(batch[0]).square().mean()


@pytest.mark.parametrize("members", [1, 3])
def test_predicted_variances_give_intervals(build, toys, new: Path, tmp_path: Path, members: int) -> None:
    driver = build(learner=Gaussian(members), train_datapool=regression(toys), max_active_learning_steps=1)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=Gaussian(members), level=0.5)
    outputs = driver.infer(inputs_of(new)).double().reshape(-1, 5, 2).numpy()
    deviation = np.sqrt(outputs[:, :, 1].mean(axis=0) + outputs[:, :, 0].var(axis=0))
    assert np.allclose(made.values, outputs[:, :, 0].mean(axis=0))
    assert np.allclose(made.std, deviation)
    assert np.allclose(made.high - made.values, 0.6744897501960817 * deviation)
    assert np.allclose(made.values - made.low, made.high - made.values)
    made.write(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "row,prediction,std,low,high"
    assert made.as_json()["level"] == 0.5
    assert set(made.arrays()) == {"values", "std", "low", "high"}
    alone = quantities(driver.infer(inputs_of(new)), "mean-variance")  # of an export, at 90%
    assert np.allclose(alone["std"], made.std)
    assert np.allclose(alone["high"], predict(Run(driver.log_dir), new, learner=Gaussian(members)).high)
    with pytest.raises(UsageError, match="level is 90"):
        predict(Run(driver.log_dir), new, learner=Gaussian(members), level=90)


def test_intervals_of_dropout_are_those_that_metrology_measures(build, toys, new: Path) -> None:
    def learner() -> torch.nn.Module:
        model = Gaussian(1)
        model.layers[0] = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2))
        return model

    driver = build(learner=learner(), train_datapool=regression(toys), max_active_learning_steps=1)
    driver.run()
    made = predict(Run(driver.log_dir), new, learner=learner(), level=0.5)
    measured = mean_and_variance(predictive(driver)(inputs_of(new)), "mean-variance")
    mean, reach = measured.mean[:, 0].numpy(), 0.6744897501960817 * measured.variance[:, 0].sqrt().numpy()
    assert np.allclose(made.low, mean - reach, atol=1e-6)
    assert np.allclose(made.high, mean + reach, atol=1e-6)
    assert not np.allclose(made.values, mean, atol=1e-3), "that is the network without dropout"
