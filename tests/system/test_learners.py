"""Learners given as package.module:name, and the loss of those without a training step."""

from __future__ import annotations

import csv
import math
import tomllib

import pytest

pytestmark = pytest.mark.system

CODE = '''
import torch


def net(width: int = 6):
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))


class Zero(torch.nn.Module):
    """Returns zeros whatever happens, so that its loss is known exactly."""

    def __init__(self, info):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(info.classes if info.classes > 2 else 1))

    def forward(self, inputs):
        return 0 * inputs.sum(dim=1, keepdim=True) * self.weight


class Own(Zero):
    def training_step(self, batch):
        inputs, _ = batch
        return self(inputs).sum() + 42
'''


@pytest.fixture
def package(tmp_path):
    (tmp_path / "lab" / "deep").mkdir(parents=True)
    (tmp_path / "lab" / "deep" / "nets.py").write_text(CODE)
    return "lab.deep.nets"


def table(path, targets):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "y"])
        for i, target in enumerate(targets):
            writer.writerow([math.sin(i), math.cos(i), target])


def loss_of(here, run):
    return here("show", run, "--json").data["steps"][0]["losses"]["loss"]


def test_factory_of_the_user_is_a_learner_with_parameters(here, package, tmp_path):
    here("run", "--learner", f"{package}:net", "--set", "learner.net.width=7", "--steps", "1", "-q", "--run-id", "own")
    written = tomllib.loads((tmp_path / "active_learning_logs" / "own" / "experiment.toml").read_text())
    assert written["learner"] == {"net": {"use": f"{package}:net", "width": 7}}


def test_file_that_names_code_needs_allow_code(here, package, tmp_path, requests_of):
    here("run", "--learner", f"{package}:net", "--steps", "1", "-q", "--run-id", "own")
    file = tmp_path / "active_learning_logs" / "own" / "experiment.toml"
    marker = tmp_path / "imported"
    with (tmp_path / "lab" / "deep" / "nets.py").open("a") as code:
        code.write(f"\nopen({str(marker)!r}, 'w').close()\n")
    message = here("run", file, code=2).message
    assert "[learner.net]" in message
    assert f"{package}:net" in message
    assert "--allow-code" in message
    assert not marker.exists(), "the code was imported before it was allowed"
    for number, flags in enumerate([["--allow-code"], ["--learner", f"{package}:net"]]):
        here("run", file, *flags, "-q", "--run-id", f"again{number}")
        again = file.parents[1] / f"again{number}"
        assert marker.exists()
        assert (again / "f1_metrology.json").read_bytes() == (file.parent / "f1_metrology.json").read_bytes()
        assert requests_of(again) == requests_of(file.parent)


def test_export_and_show_import_no_code_of_a_run_unasked(here, package, tmp_path):
    here("run", "--learner", f"{package}:net", "--steps", "1", "-q", "--run-id", "own")
    marker = tmp_path / "imported"
    (tmp_path / "lab" / "deep" / "nets.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    here("show", "own")
    here("export", "own")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["no", "yes"] * 30, math.log(2)),
        (["no", "yes", "perhaps"] * 20, math.log(3)),
    ],
    ids=["binary", "three classes"],
)
def test_default_loss_of_classification_is_cross_entropy(here, package, tmp_path, targets, expected):
    table(tmp_path / "t.csv", targets)
    here(
        *("run", "--data", "csv", "--set", "data.csv.path=t.csv", "--set", "data.csv.target=y", "--steps", "1", "-q"),
        *("--learner", f"{package}:Zero", "--set", "training.max_training_epochs=1", "--run-id", "loss"),
    )
    assert loss_of(here, "loss") == pytest.approx(expected, abs=1e-6)


def test_default_loss_of_regression_is_the_squared_error(here, package, tmp_path):
    import numpy as np

    table(tmp_path / "t.csv", [math.sqrt(i) + 0.25 for i in range(60)])
    (tmp_path / "e.toml").write_text(
        "[driver]\nbatch_size = 100\nmax_active_learning_steps = 1\n[training]\nmax_training_epochs = 1\n"
        '[data.csv]\npath = "t.csv"\ntarget = "y"\ntask = "regression"\n[query.random]\nmax_samples = 1\n[metrology]\n'
    )
    here("run", "e.toml", "--learner", f"{package}:Zero", "-q", "--run-id", "loss")
    here("export", "loss", "--output", "out")
    with np.load(tmp_path / "out" / "labeled.npz") as arrays:
        initial = arrays["targets"][:-1]
    assert len(initial) > 3
    assert loss_of(here, "loss") == pytest.approx(float((initial.astype("f8") ** 2).mean()), rel=1e-5)


def test_training_step_of_the_learner_comes_first(here, package):
    here("run", "--learner", f"{package}:Own", "--steps", "1", "-q", "--run-id", "loss")
    assert loss_of(here, "loss") == 42.0


def test_raising_factory_is_named(here, package, tmp_path):
    (tmp_path / "lab" / "bad.py").write_text("def net():\n    raise ValueError('no net today')\n")
    result = here("run", "--learner", "lab.bad:net", "--steps", "1", code=1)
    assert "no net today" in result.err
    assert "Traceback" not in result.err
    assert "learner.net" in result.err, "the message doesn't say which part can't be built"
    assert not (tmp_path / "active_learning_logs").exists()
