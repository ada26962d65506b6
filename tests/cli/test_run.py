"""``alcore run``: bad input gets one paragraph, exit code 2 and nothing on disk; flags and files are obeyed."""

from __future__ import annotations

import json
import os

import pytest

from alcore.experiment.file import STANDARD_PARTS
from alcore.store.reading import Run

FILES = {
    "broken.toml": "[driver\n",
    "latin.toml": b"# caf\xe9\n",
    "latin.xls": b"# caf\xe9\n",
    "unknown.toml": "[qeury.uq]\n",
    "loose.toml": "seed = 3\n",
    "string.toml": '[training]\noptimizer = "SGD"\n',
    "evil.toml": '[training.optimizer]\ncls = "os:system"\n',
    "two.toml": "[data.moons]\n[data.csv]\n",
    "flat.toml": '[query]\nuq = "all"\n',
    "code.toml": '[label.x]\nuse = "os:system"\n',
}

BAD = {
    "name": (["--query", "up"], ["query 'up'", "did you mean 'uq'?", "random", "alcore plugins"]),
    "name of another kind": (["--query", "mlp"], ["query 'mlp'", "uq"]),
    "several in one": (["--query", "uq,random"], ["'uq,random'", "repeat the flag: --query uq --query random"]),
    "names and parameters": (
        ["--query", "bagde", "--set", "query.uq.foo=1", "--loop", "xx"],
        ["3 things are wrong", "'bagde'", "query.uq.foo=1", "loop 'xx'"],
    ),
    "value that a strategy refuses": (
        ["--set", "query.uq.max_samples=-1"],
        ["max_samples is -1", "while building query.uq; change it with --set query.uq.max_samples=VALUE"],
    ),
    "parameter": (["--set", "query.uq.max_sample=3"], ["query.uq", "'max_sample'", "did you mean 'max_samples'?"]),
    "type": (["--set", "query.uq.max_samples=ten"], ["query.uq.max_samples is 'ten'", "int"]),
    "float for int": (["--set", "query.uq.max_samples=2.5"], ["query.uq.max_samples is 2.5", "int"]),
    "bool for int": (["--set", "query.uq.max_samples=true"], ["query.uq.max_samples is True", "int"]),
    "word for bool": (["--set", "driver.drop_last=yes"], ["driver.drop_last is 'yes'", "bool"]),
    "choice": (["--set", "query.uq.measure=entropi"], ["query.uq.measure", "'entropi'", "'entropy'"]),
    "empty value": (["--set", "query.uq.max_samples="], ["query.uq.max_samples is ''", "int"]),
    "set without =": (["--set", "query.uq.max_samples"], ["--set query.uq.max_samples", "=value"]),
    "set too short": (["--set", "query.uq=3"], ["--set query.uq=3", "query.uq.max_samples=10"]),
    "set of no kind": (["--set", "qery.uq.max_samples=3"], ["'qery'", "did you mean 'query'?"]),
    "set of no part": (["--set", "query.random.max_samples=3"], ["no query 'random'", "--query random"]),
    "set inside a setting": (["--set", "driver.seed.x=1"], ["driver.seed"]),
    "missing": (["--data", "csv"], ["data.csv.path is missing", "--set data.csv.path="]),
    "no such table": (["--data", "csv", "--set", "data.csv.path=nothing.csv"], ["nothing.csv"]),
    "no such data file": (["nothing.csv"], ["nothing.csv"]),
    "data of unknown kind": (["--data", "t.xlsx"], ["t.xlsx", ".xlsx", ".csv, .npz, .tsv"]),
    "file of unknown kind": (["latin.xls"], ["latin.xls", ".toml", ".csv, .npz, .tsv"]),
    "file and other data": (["t.csv", "--data", "moons"], ["t.csv already", "--data moons"]),
    "two files": (["t.csv", "--data", "other.csv"], ["t.csv already", "--data other.csv"]),
    "target of data without one": (["--target", "x"], ["data.moons has no parameter 'target'"]),
    "undecodable": (["--data", "csv", "--set", os.fsdecode(b"data.csv.path=\xff.csv")], ["data.csv.path"]),
    "negative": (["--set", "query.uq.max_samples=-1"], ["max_samples", "-1"]),
    "batch size": (["--batch-size", "0"], ["batch_size", "0", "at least 1"]),
    "budget": (["--budget", "-1"], ["budget", "-1", "at least 0"]),
    "budget nan": (["--budget", "nan"], ["budget", "nan"]),
    "steps": (["--steps", "-2"], ["max_active_learning_steps", "-2"]),
    "threads": (["--threads", "0"], ["threads", "0", "at least 1"]),
    "device": (["--device", "gpu"], ["device", "'gpu'", "cuda"]),
    "dtype": (["--dtype", "float31"], ["dtype", "'float31'", "float32"]),
    "integer dtype": (["--dtype", "int64"], ["dtype", "int64", "floating-point"]),
    "retention": (["--keep", "lst=3"], ["driver.keep 'lst=3'", "did you mean 'last'"]),
    "retention without metric": (["--keep", "best"], ["driver.keep 'best'", "best=f1"]),
    "queue": (["--queue", "fivo"], ["queue", "'fivo'", "did you mean 'fifo'?"]),
    "run id": (["--run-id", "../up"], ["'../up'", "letters"]),
    "optimizer": (["--set", "training.optimizer.cls=Adamm"], ["training.optimizer.cls", "did you mean 'Adam'?"]),
    "optimizer argument": (
        ["--set", "training.optimizer.cls=SGD", "--set", "training.optimizer.momentun=0.9"],
        ["did you mean 'momentum'?"],
    ),
    "optimizer value": (["--set", "training.optimizer.lr=-1"], ["training.optimizer", "-1"]),
    "class of f1": (["--set", "metrology.f1.positive=two"], ["'two'"]),
    "no file": (["nothing.toml"], ["nothing.toml"]),
    "a folder": (["."], ["experiment file"]),
    "not toml": (["broken.toml"], ["broken.toml", "TOML", "line 1"]),
    "not utf-8": (["latin.toml"], ["latin.toml"]),
    "unknown table": (["unknown.toml"], ["unknown.toml", "[qeury]", "did you mean 'query'?"]),
    "outside a table": (["loose.toml"], ["loose.toml", "'seed'", "[driver]"]),
    "optimizer as text": (["string.toml"], ["training.optimizer", "'SGD'"]),
    "optimizer as text, set": (["string.toml", "--set", "training.optimizer.lr=0.1"], ["training.optimizer"]),
    "not an optimizer": (["evil.toml"], ["training.optimizer.cls"]),
    "two data": (["two.toml"], ["one data", "moons", "csv"]),
    "part that is not a table": (["flat.toml"], ["flat.toml", "[query.uq]"]),
    "missing learner": (["--learner", "nowhere_at_all:net"], ["nowhere_at_all:net", "ModuleNotFoundError"]),
    "learner that is an object": (["--learner", "math:pi"], ["math:pi", "float", "not a class or a function"]),
    "unnamed learner": (["--learner", "math:"], ["--learner math:"]),
    "learner's name": (["--learner", "mpl"], ["learner 'mpl'", "did you mean 'mlp'?"]),
    "learner's parameter": (
        ["--learner", "torch.nn:Linear", "--set", "learner.Linear.in_feature=7"],
        ["learner.Linear", "did you mean 'in_features'?"],
    ),
    "scheduler without its arguments": (["--set", "training.scheduler.cls=StepLR"], ["scheduler", "step_size"]),
    "code in a file": (["code.toml"], ["[label.x]", "os:system", "--allow-code"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_paragraph_and_exits_with_2(command, tmp_path, case):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments, fragments = BAD[case]
    steps = [] if "--steps" in arguments else ["--steps", "1"]
    out, err = command("run", *arguments, *steps, "-q", code=2)
    assert out == ""
    text = err.strip()
    assert text.startswith("alcore: error: ")
    assert "\n\n" not in text, "more than one paragraph"
    assert text.count("alcore: ") == 1, "more than one message"
    assert text.endswith((".", "?")) or "\n- " in text
    for fragment in fragments:
        assert fragment in " ".join(text.split())
    assert not (tmp_path / "active_learning_logs").exists(), "a refused run left something behind"


def test_valid_input_like_the_bad_one_is_accepted(command):
    out, err = command(
        *("run", "--query", "uq", "--set", "query.uq.max_samples=3", "--set", "driver.drop_last=false"),
        *("--set", "training.optimizer.cls=SGD", "--set", "training.optimizer.momentum=0.9", "--batch-size", "9"),
        *("--set", "metrology.f1.positive=1", "--queue", "lifo", "--dtype", "float64", "--device", "cpu"),
        *("--threads", "1", "--budget", "3", "--steps", "1", "--run-id", "ok", "-q"),
    )
    assert out == f"{os.path.join('active_learning_logs', 'ok')}\n"  # noqa: PTH118
    assert err == ""


@pytest.mark.parametrize("way", [["t.csv"], ["--data", "t.csv"], ["t.csv", "--data", "csv"]])
def test_a_file_of_data_means_the_data_that_reads_it(command, tmp_path, way):
    rows = [f"{place % 7},{place % 5},{'ab'[place % 2]}" for place in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["u,v,1", *rows]))
    command("run", *way, "--target", "1", "--set", "data.csv.drop=['u']", "--steps", "1", "--run-id", "ok", "-q")
    text = (tmp_path / "active_learning_logs" / "ok" / "experiment.toml").read_text()
    assert f'\npath = "{tmp_path}/t.csv"\n' in text
    assert '\ntarget = "1"\n' in text
    command("run", "active_learning_logs/ok/experiment.toml", "--run-id", "again", "-q")


def test_argument_of_the_suggested_optimizer_is_accepted(command, tmp_path):
    # moons suggest SGD, which has a momentum; AdamW, the default elsewhere, has none
    command("run", "--set", "training.optimizer.momentum=0.9", "--steps", "1", "--run-id", "ok", "-q")
    text = (tmp_path / "active_learning_logs" / "ok" / "experiment.toml").read_text()
    assert "momentum = 0.9" in text
    assert 'cls = "SGD"' in text


def test_other_optimizer_gets_no_suggested_arguments(command, tmp_path):
    command("run", "--set", "training.optimizer.cls=Adagrad", "--steps", "1", "--run-id", "ok", "-q")
    text = (tmp_path / "active_learning_logs" / "ok" / "experiment.toml").read_text()
    assert '[training.optimizer]\ncls = "Adagrad"\n\n' in text


def test_run_of_the_command_trains_once_more_on_its_last_labels_unless_it_is_told_not_to(command, tmp_path):
    (tmp_path / "e.toml").write_text("[driver]\nfinal_training = false\n")
    few = ["--steps", "1", "--set", "training.max_training_epochs=1", "-q"]
    for name, words in (("one", []), ("two", ["e.toml"]), ("three", ["--set", "driver.final_training=false"])):
        command("run", *words, "--run-id", name, *few)
        run = tmp_path / "active_learning_logs" / name
        trained = name == "one"
        assert f"final_training = {str(trained).lower()}" in (run / "experiment.toml").read_text()
        assert len(Run(run).records()["f1_metrology"]) == 1 + trained


def test_labels_that_no_training_has_used_are_told_wherever_a_run_is_summarized(command, tmp_path):
    few = ["--steps", "2", "--set", "training.max_training_epochs=1", "--set", "data.moons.samples=120"]
    told = "10 labels came after the last training, so the learner does not know them"
    again = "alcore resume no --set driver.final_training=true"
    done, _ = command("run", "--run-id", "no", *few, "--set", "driver.final_training=false")
    assert f"{told}; with final_training, a run whose steps are done trains once more: {again}" in done
    assert told in command("show", "no")[0]
    assert "labels, 10 of them not trained on" in command("watch", "no")[0]
    command("report", "no")
    assert "last trained on 16 samples, 10 not trained on" in (tmp_path / "no-report.html").read_text()
    assert json.loads(command("show", "no", "--json")[0])["untrained"] == 10
    done, _ = command(*again.split()[1:])
    command("report", "no")
    assert "last trained on 26 samples<" in (tmp_path / "no-report.html").read_text()
    for text in (done, command("show", "no")[0], command("watch", "no")[0]):
        assert "trained on" not in text
        assert "after the last training" not in text


def test_retention_of_a_file_is_obeyed_and_overridden_by_the_flag(command, tmp_path):
    (tmp_path / "e.toml").write_text(
        '[driver]\nmax_active_learning_steps = 4\nfinal_training = false\nkeep = "last=1,every=2"\n'
    )
    root = tmp_path / "active_learning_logs"
    command("run", "e.toml", "--run-id", "one", "-q")
    assert [checkpoint["step"] for checkpoint in Run(root / "one").checkpoints()] == [0, 1, 3]
    command("run", "e.toml", "--run-id", "two", "--keep", "all", "-q")
    assert len(Run(root / "two").checkpoints()) == 5


@pytest.mark.parametrize("kind", sorted(STANDARD_PARTS))
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("./one.py:X", "it is not of the form package.module:name; for the file ./one.py write one:X."),
        ("{here}/one.py:X", "/one.py write one:X."),
        ("one.py:X", "for the file one.py write one:X."),
        (".one:X", "it is not of the form package.module:name."),
        ("one:", "it is not of the form package.module:name."),
        ("ends:X", "SystemExit: not today."),
    ],
    ids=["path", "absolute", "file", "dot", "no-name", "exit"],
)
def test_code_that_cannot_be_imported_is_one_paragraph_for_every_kind(command, tmp_path, kind, code, words):
    (tmp_path / "one.py").write_text("class X:\n    pass\n")
    (tmp_path / "ends.py").write_text("raise SystemExit('not today')\n")
    code = code.format(here=tmp_path)
    out, err = command("run", f"--{kind}", code, "--steps", "1", code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"alcore: error: --{kind} {code} can't be imported: ")
    assert words in line
    assert "TypeError" not in err
    assert not out
    assert not (tmp_path / "active_learning_logs").exists()


@pytest.mark.parametrize("name", ["run", "check"])
def test_weights_that_are_named_now_need_not_be_those_of_the_file(command, tmp_path, name):
    command("run", "--steps", "0", "--run-id", "first", "--set", "data.moons.samples=60")
    command("export", "first", "--output", "exported")
    weights = tmp_path / "exported" / "model.safetensors"
    (tmp_path / "other.toml").write_text(f'[driver]\nweights = "gone.safetensors"\nweights_sha256 = "{"0" * 64}"\n')
    flags = ["--set", "data.moons.samples=60", "--steps", "1"]
    command(name, "other.toml", "--weights", str(weights), *flags)
    _, err = command(name, "other.toml", *flags, code=2)
    assert "gone.safetensors" in err
