"""`export_run`: what is written of a run, and what is said where the data can't be made again."""

from __future__ import annotations

import csv
import json
import runpy

import numpy as np
import pytest
import torch
from alcore_predict import export_run
from helpers.separate import INFO, Expert, Last, separate_pools
from safetensors.torch import load_file

import alcore
from alcore import Data, DataInfo, Label, TensorPool
from alcore.errors import UsageError
from alcore.experiment import build as build_driver
from alcore.experiment import resolve
from alcore.store import Run
from alcore.strategies import BaseLabel, BaseQuery


class Loop:
    def __call__(self, model, **arguments): ...


@pytest.fixture
def run(registry, chosen, monkeypatch, tmp_path):
    """A finished run of one step that labeled samples 4 and 5."""
    offers = registry.plugins[0].offers
    offers["data"]["moons"], offers["query"]["uq"], offers["label"]["dummy"] = separate_pools, Last, Expert
    offers["learner"]["mlp"] = lambda: torch.nn.Linear(1, 1)
    monkeypatch.setattr("alcore.experiment.trained.installed", lambda: registry)
    sets = [f"driver.root_log_dir={tmp_path}", "driver.max_active_learning_steps=1"]
    driver = build_driver(resolve(chosen(*sets, metrology=[]), registry), run_id="done")
    driver.run()
    return Run(driver.log_dir)


def test_export_has_labels_model_and_labeled_data(run, tmp_path):
    written = dict(export_run(run, tmp_path / "out"))
    assert list(written) == [
        "labels.csv", "model.safetensors", "labeled.npz", "info.json", "learner.json", "model.py", "predict.py",
        "README.txt",
    ]  # fmt: skip
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sample"], row["value"], row["source"], row["cost"]) for row in rows] == [
        ("4", "0", "expert", "2.5"), ("5", "1", "expert", "2.5"),
    ]  # fmt: skip
    assert [(row["state"], row["label"]) for row in rows] == [("labeled", "a"), ("labeled", "b")]
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {"weight", "bias"}
    with np.load(tmp_path / "out" / "labeled.npz") as arrays:
        assert arrays["inputs"].tolist() == [[0.0], [1.0], [14.0], [15.0]]
        assert arrays["targets"].tolist() == [0, 1, 0, 1]


def test_export_of_a_run_built_in_python_says_that_its_data_is_missing(build, tmp_path):
    driver = build(max_active_learning_steps=1)
    driver.run()
    written = dict(export_run(Run(driver.log_dir), tmp_path / "out"))
    assert written["labeled.npz"].startswith("not written: the run was built in Python")
    assert written["model.py"].startswith("not written: run ")
    assert "--learner package.module:name" in written["model.py"]
    names = {"labels.csv", "model.safetensors", "info.json", "learner.json", "README.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_export_of_a_run_built_in_python_takes_its_learner(build, toys, tmp_path):
    driver = build(max_active_learning_steps=1)
    driver.run()
    assert "model.py" in dict(export_run(Run(driver.log_dir), tmp_path / "out", learner=toys.learner(5)))
    inputs = torch.randn(4, 2)
    loaded = runpy.run_path(str(tmp_path / "out" / "model.py"))["load"](tmp_path / "out")
    assert torch.allclose(loaded(inputs), driver.infer(inputs))


def test_labels_at_the_start_late_answers_and_places_in_the_file_are_told(registry, chosen, monkeypatch, tmp_path):
    def data() -> Data:
        pool = TensorPool(torch.arange(8.0)[:, None], torch.arange(8) % 2, labeled=[1, 0], info=INFO)
        pool.source_rows, pool.source_lines = torch.arange(8) * 3, torch.arange(8) * 3 + 2
        return Data(pool, info=INFO)

    class Late(BaseLabel):
        """Answers the first request of step 0 in step 1 alone."""

        kept = None

        def label(self, queue_to_label, serialize_queue, *args, **kwargs):
            for request in queue_to_label.get_many(9):
                if self.kept is None:
                    Late.kept = request
                else:
                    serialize_queue.put(request.item)
            if self.driver.active_learning_step_idx:
                serialize_queue.put(Label(Late.kept, 1))

        def poll(self, request_id):
            return alcore.PENDING

    offers = registry.plugins[0].offers
    offers["data"]["moons"], offers["query"]["uq"], offers["label"]["dummy"] = data, Last, Late
    offers["learner"]["mlp"] = lambda: torch.nn.Linear(1, 1)
    monkeypatch.setattr("alcore.experiment.trained.installed", lambda: registry)
    sets = [f"driver.root_log_dir={tmp_path}", "driver.max_active_learning_steps=2"]
    driver = build_driver(resolve(chosen(*sets, metrology=[]), registry), run_id="late")
    driver.run()
    export_run(Run(driver.log_dir), tmp_path / "out")
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = [
            [row[name] for name in ("state", "step", "sample", "row", "line", "label")] for row in csv.DictReader(file)
        ]
    assert rows == [
        ["initial", "", "1", "3", "5", "b"], ["initial", "", "0", "0", "2", "a"],
        ["labeled", "0", "6", "18", "20", "b"], ["labeled", "0", "7", "21", "23", "b"],
        ["labeled", "1", "4", "12", "14", "a"], ["labeled", "1", "5", "15", "17", "b"],
    ]  # fmt: skip
    with np.load(tmp_path / "out" / "labeled.npz") as arrays:
        assert arrays["ids"].tolist() == [1, 0, 7, *driver.train_datapool.labeled_ids[3:].tolist()]
        assert arrays["rows"].tolist() == [3 * sample for sample in arrays["ids"]]


def test_data_that_cannot_be_made_again_leaves_the_rest(run, monkeypatch, tmp_path):
    def gone(*args, **kwargs):
        raise UsageError("there is no file 'a.csv'.")

    monkeypatch.setattr("alcore.experiment.trained.load_data", gone)
    written = dict(export_run(run, tmp_path / "out"))
    assert written["labeled.npz"] == "not written: there is no file 'a.csv'"
    assert (tmp_path / "out" / "model.py").is_file()
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a", "b"]


def test_learner_is_described_as_it_is_built(run, tmp_path):
    export_run(run, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "learner.json").read_text())
    assert about["class"] == "torch.nn.modules.linear:Linear"
    assert (about["task"], about["classes"], about["outputs"], about["dtype"]) == (
        "classification", ["a", "b"], "logits", "float32",
    )  # fmt: skip
    assert about["learner"]["name"] == "mlp"
    assert about["state"]["weight"] == {"shape": [1, 1], "dtype": "float32"}


def test_fields_are_exported_as_arrays(registry, chosen, monkeypatch, tmp_path):
    class Field(BaseLabel):
        def label(self, queue_to_label, serialize_queue, *args, **kwargs):
            while not queue_to_label.empty():
                request = queue_to_label.get_request()
                made = not isinstance(request.item, int)
                row = request.item if made else self.driver.train_datapool.inputs(torch.tensor([request.item]))[0]
                serialize_queue.put(Label(request, row[:1, None].expand(129, 129)))

    class Both(BaseQuery):
        def sample(self, query_queue, *args, **kwargs):
            query_queue.put_many([3, 7, torch.full((20_000,), 0.5)])

    class Flat(torch.nn.Module):
        outputs = "values"

        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.zeros(()))

        def forward(self, inputs):
            return self.level * inputs[:, :1, None].expand(-1, 129, 129)

    inputs = torch.arange(8.0)[:, None].expand(8, 20_000)
    info = DataInfo("regression", 0, 20_000, (20_000,))
    offers = registry.plugins[0].offers
    offers["data"]["moons"] = lambda: Data(TensorPool(inputs, info=info), info=info)
    offers["query"]["uq"], offers["label"]["dummy"], offers["learner"]["mlp"] = Both, Field, Flat
    monkeypatch.setattr("alcore.experiment.trained.installed", lambda: registry)
    sets = [f"driver.root_log_dir={tmp_path}", "driver.max_active_learning_steps=1", "driver.skip_training=true"]
    driver = build_driver(resolve(chosen(*sets, metrology=[]), registry), run_id="fields")
    driver.run()
    written = dict(export_run(Run(driver.log_dir), tmp_path / "out"))
    assert "values.npz" in written
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(tmp_path / "out" / "values.npz") as arrays, np.load(tmp_path / "out" / "labeled.npz") as labeled:
        values = [arrays[json.loads(row["value"])["array"]] for row in rows]
        assert [(array.shape, float(array[5, 5])) for array in values] == [((129, 129), level) for level in (3, 7, 0.5)]
        assert [row["sample"] for row in rows[:2]] == ["3", "7"]
        assert arrays[json.loads(rows[2]["sample"])["array"]].tolist() == [0.5] * 20_000
        assert labeled["targets"].shape == (3, 129, 129)
        assert labeled["targets"][:, 0, 0].tolist() == [3, 7, 0.5]
        assert labeled["inputs"][:, 0].tolist() == [3, 7, 0.5]


def test_export_into_an_existing_folder_is_refused(run, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_run(run, tmp_path / "taken")


@pytest.mark.parametrize("point", ["_Labels.write", "save_file", "program_of", "_arrays", "export_json"])
def test_export_that_is_cut_off_leaves_nothing_and_can_be_made_again(run, tmp_path, monkeypatch, point):
    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"alcore_predict.export.{point}", cut)
        with pytest.raises(KeyboardInterrupt):
            export_run(run, tmp_path / "outer" / "out")
    assert list((tmp_path / "outer").iterdir()) == []
    assert len(export_run(run, tmp_path / "outer" / "out")) == 8
