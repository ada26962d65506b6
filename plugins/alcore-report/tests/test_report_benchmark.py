"""`alcore benchmark`: the cross product, common random numbers, resuming, refusals."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from alcore_report import cells
from alcore_report.curves import curves_of_runs, note_looks
from alcore_testing import Finished, run_command
from helpers.processes import forked_python
from safetensors.numpy import load_file

from alcore.store import Run

SMALL = ["--set", "data.moons.samples=120", "--steps", "2", "--set", "query.uq.max_samples=7"]
BENCHMARK = ["benchmark", "--query", "uq", "--seeds", "2", "--ceiling", *SMALL]


def one_line(text):
    return " ".join(text.split())


@pytest.fixture(scope="module", autouse=True)
def _forked_cells():
    """Cells of a benchmark that is called in this process are forked; those of an interrupted one are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "subprocess", SimpleNamespace(Popen=forked_python, DEVNULL=subprocess.DEVNULL))
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory, worker_id):
    """A benchmark of three arms and two seeds: the folder where it was called, and what the command wrote.

    It is run once for all processes of the tests.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "small-benchmark"
    folder.mkdir(exist_ok=True)
    kept = folder / "finished.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text(json.dumps(run_command(folder, *BENCHMARK, "--json")))
    done = Finished(*json.loads(kept.read_text()))
    assert done.code == 0, done.err
    return folder, done


def run_of(folder: Path, name: str) -> Run:
    return Run(folder / "active_learning_logs" / "moons" / name)


def f1(run):
    return [record["f1"] for record in run.records()["f1_metrology"]]


def test_each_arm_has_a_run_a_seed_and_random_is_added(small):
    folder, done = small
    runs = {path.parent.name for path in folder.glob("active_learning_logs/moons/*/run.db")}
    assert runs == {f"{arm}-{seed}" for arm in ("uq", "random", "ceiling") for seed in (0, 1)}
    assert "3 arms (uq, random, ceiling) x 2 seeds = 6 runs" in done.err
    assert "is done (6 of 6 runs)" in done.err


def test_runs_of_one_seed_begin_alike_whatever_the_arm(small):
    folder, _ = small
    for seed in (0, 1):
        runs = [run_of(folder, f"{arm}-{seed}") for arm in ("uq", "random", "ceiling")]
        assert len({json.dumps(run.meta()["pools"]) for run in runs}) == 1  # points and initial labels
        weights = [load_file(run.folder / "ckpt" / run.checkpoints()[0]["file"]) for run in runs]
        for name in (name for name in weights[0] if name.startswith("model.")):
            assert all(np.array_equal(weights[0][name], weights_of_run[name]) for weights_of_run in weights), name
        # the same training on them: the same order of batches
        assert len({json.dumps(run.records()["f1_metrology"][0]) for run in runs}) == 1
        assert len({json.dumps(run.steps()[0]["losses"]) for run in runs}) == 1
    pools = {json.dumps(run_of(folder, f"uq-{seed}").meta()["pools"]) for seed in (0, 1)}
    assert len(pools) == 2


def test_the_baseline_asks_for_as_many_samples_as_the_arm(small):
    folder, _ = small
    for arm in ("uq", "random"):
        assert [len(run_of(folder, f"{arm}-0").requests(step)) for step in (0, 1)] == [7, 7]
    assert {request["sample"] for request in run_of(folder, "uq-0").requests()} != {
        request["sample"] for request in run_of(folder, "random-0").requests()
    }


def test_the_ceiling_is_trained_on_every_label_for_as_many_epochs_as_an_arm(small):
    folder, done = small
    run = run_of(folder, "ceiling-0")
    assert len(run.requests()) == 114
    assert run.records()["f1_metrology"][-1]["train_samples"] == 120
    epochs = [5, 5]  # of the fine-tuning in the second step of an arm, and at its end
    assert f"max_fine_tuning_epochs = {sum(epochs)}" in (run.folder / "experiment.toml").read_text()
    final = np.mean([f1(run_of(folder, f"ceiling-{seed}"))[-1] for seed in (0, 1)])
    assert json.loads(done.out)["ceiling"]["value"] == pytest.approx(final)


def test_the_ceiling_of_a_learner_without_epochs_is_fitted_to_every_label(tmp_path):
    lines = [f"{place % 7},{place % 11},{'yes' if place % 7 > place % 11 else 'no'}" for place in range(77)]
    (tmp_path / "points.csv").write_text("\n".join(["one,two,kind", *lines]))
    done = run_command(
        *(tmp_path, "benchmark", "points.csv", "--target", "kind", "--query", "random", "--seeds", "1", "--steps", "1"),
        *("--ceiling", "--set", "query.random.max_samples=5", "--name", "points"),
    )
    assert done.code == 0, done.err
    run = Run(tmp_path / "active_learning_logs" / "points" / "ceiling-0")
    assert "[learner.deep-ensemble]" in (run.folder / "experiment.toml").read_text()
    (records,) = run.records().values()
    assert records[-1]["train_samples"] == 58, "all but a quarter of the rows, which are held out"


def test_the_comparison_is_that_of_the_records(small):
    folder, done = small
    (axis,) = json.loads(done.out)["axes"]
    assert axis["x"] == [6, 13, 20]
    for arm in ("uq", "random"):
        curves = np.array([f1(run_of(folder, f"{arm}-{seed}")) for seed in (0, 1)])
        assert axis["arms"][arm]["mean"] == pytest.approx(curves.mean(axis=0).tolist())
        area = (curves[:, 0] / 2 + curves[:, 1] + curves[:, 2] / 2) / 2
        assert axis["arms"][arm]["area"]["value"] == pytest.approx(area.mean())
    assert axis["verdicts"]["uq"]["outcome"] == "too few seeds"
    assert (folder / "active_learning_logs" / "moons" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_takes_the_folder_of_a_benchmark_by_its_name(small):
    folder, done = small
    again = run_command(folder, "compare", "moons", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(done.out)


def test_verdicts_are_noted_with_their_seeds(small, tmp_path):
    home = tmp_path / "moons"
    shutil.copytree(small[0] / "active_learning_logs" / "moons", home)
    runs = [home / f"{arm}-{seed}" for arm in ("uq", "random") for seed in (0, 1)]
    assert curves_of_runs(runs).looks == {}
    for seeds in ([1, 0], [0, 1], [0, 1, 2]):
        note_looks([home], {"uq": seeds, "another": seeds})
    collected = curves_of_runs(runs)
    assert collected.looks == {"uq": [[0, 1], [0, 1, 2]]}
    assert collected.benchmarks == [home.resolve()]
    assert run_command(tmp_path, *BENCHMARK, "--root", tmp_path).code == 0  # which writes the file anew
    assert curves_of_runs(runs).looks == collected.looks


def test_damaged_looks_are_left_out(small, tmp_path):
    home = tmp_path / "moons"
    shutil.copytree(small[0] / "active_learning_logs" / "moons", home)
    manifest = json.loads((home / "benchmark.json").read_text())
    for looks, left in (([1], {}), ({"uq": 3}, {}), ({"uq": [[0, 1], "x", [None]]}, {"uq": [[0, 1]]})):
        (home / "benchmark.json").write_text(json.dumps({**manifest, "looks": looks}))
        assert curves_of_runs([home / "uq-0"]).looks == left


def test_what_is_done_is_not_run_again(small):
    folder, _ = small
    databases = list(folder.glob("active_learning_logs/moons/*/run.db"))
    before = {path: path.stat().st_mtime_ns for path in databases}
    again = run_command(folder, *BENCHMARK)
    assert again.code == 0
    assert " is done" not in again.err
    assert {path: path.stat().st_mtime_ns for path in databases} == before
    assert "Too few seeds to tell whether uq is better than random" in again.out


def test_another_experiment_of_the_same_name_is_refused(small):
    folder, _ = small
    done = run_command(folder, *BENCHMARK, "--set", "training.max_training_epochs=3", "--steps", "4")
    assert done.code == 2
    said = one_line(done.err)
    assert "driver.max_active_learning_steps was 2 and is 4" in said
    assert "training.max_training_epochs was 10 and is 3" in said
    assert "another name with --name" in said


def test_an_arm_that_cannot_be_run_is_told_with_the_reason_and_left_out_of_the_means(small):
    folder, first = small
    words = ["--query", "bald", "--jobs", "1", "--json"]  # the network has no dropout
    done = run_command(folder, *BENCHMARK, *words)
    assert done.code == 1
    said = one_line(done.err)
    assert "bald-0 failed: " in said
    assert "dropout" in said
    assert "bald-1 failed: not run, since the arm can't be: " in said
    result = json.loads(done.out)
    assert [run["run"] for run in result["left_out"]] == ["bald-0", "bald-1"]
    assert result["axes"] == json.loads(first.out)["axes"]


def test_a_file_gives_parameters_to_arms_and_one_arm_has_several_strategies(tmp_path):
    (tmp_path / "mine.toml").write_text(
        "[driver]\nmax_active_learning_steps = 1\n[data.moons]\nsamples = 100\ninitial = 0.1\n"
        '[query.entropy]\nuse = "uq"\nmeasure = "entropy"\nmax_samples = 4\n[query.random]\nmax_samples = 3\n'
    )
    words = ["--query", "entropy+random", "--no-baseline", "--seeds", "1"]
    done = run_command(tmp_path, "benchmark", "mine.toml", *words)
    assert done.code == 0, done.err
    folder = tmp_path / "active_learning_logs" / "mine"
    both = Run(folder / "entropy.random-0").requests()
    assert len(both) == 7
    assert [row["strategy"] for row in both].count(both[0]["strategy"]) == 4
    assert "entropy+random" in done.out


def test_an_interrupted_benchmark_leaves_no_process_and_goes_on_to_the_same_result(tmp_path):
    words = ["benchmark", "--query", "uq", "--no-baseline", "--seeds", "1", "--seed", "1", "--steps", "40"]
    process = subprocess.Popen(
        [sys.executable, "-m", "alcore", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "active_learning_logs" / "moons"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ValueError):
            if Run(folder / "uq-1").first_and_last_step():
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "SIGINT: " in err
    assert "The same command goes on from there." in err
    assert Run(folder / "uq-1").meta()["status"] == "interrupted"
    assert not left_in(folder)
    compared = run_command(tmp_path, "compare", "moons")
    assert compared.code == 2
    assert "uq-1: it is interrupted" in compared.err
    done = run_command(tmp_path, *words)
    assert done.code == 0, done.err
    whole = run_command(tmp_path, "run", str(folder / "uq.toml"), "--seed", "1", "--run-id", "whole", "--quiet")
    assert whole.code == 0, whole.err
    assert Run(tmp_path / "active_learning_logs" / "whole").decisions() == Run(folder / "uq-1").decisions()


def left_in(folder):
    """List the processes whose command line names a folder."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in path.read_bytes().replace(b"\0", b" "):
                processes.append(path)
    return processes


BOUGHT = """
from alcore import BaseLabel, Label


class Bought(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            item = queue_to_label.get()
            serialize_queue.put(Label(item, 1, cost=2.5))
"""


HALF_FAIL = """
from alcore import BaseLabel, Failed, Label


class HalfFail(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            item = queue_to_label.get()
            failed = Failed(item, "broke", kind="infeasible", cost=4.0)
            serialize_queue.put(failed if item % 2 else Label(item, 1, cost=1.5))
"""


def test_failed_attempts_count_in_the_cost(tmp_path):
    (tmp_path / "half_fail.py").write_text(HALF_FAIL)
    words = ["--label", "half_fail:HalfFail", "--query", "random", "--steps", "2", "--set", "data.moons.samples=120"]
    assert run_command(tmp_path, "run", *words, "--quiet", "--run-id", "one").code == 0
    run = Run(tmp_path / "active_learning_logs" / "one")
    paid = [sum(4.0 if request["sample"] % 2 else 1.5 for request in run.requests(step)) for step in (0, 1)]
    done = run_command(tmp_path, "compare", "one", "--json")
    assert done.code == 0, done.err
    _, over_cost = json.loads(done.out)["axes"]
    assert over_cost["over"] == "cost"
    assert over_cost["x"] == [0, paid[0], sum(paid)]


def test_data_that_does_not_know_its_answers_is_no_benchmark(tmp_path):
    rows = [f"{place / 40},{'' if place > 30 else place % 2}" for place in range(40)]
    (tmp_path / "part.csv").write_text("\n".join(["x,kind", *rows]))
    words = ["benchmark", "part.csv", "--target", "kind", "--set", "data.csv.unlabeled=ask"]
    done = run_command(tmp_path, *words, "--label", "dummy")
    assert done.code == 2
    assert "the data doesn't know the answers, so no run would get a label" in one_line(done.err)
    assert "label strategy 'ask' may cost something" in one_line(run_command(tmp_path, *words).err)


def test_labels_that_may_cost_something_are_refused_with_their_number(tmp_path):
    (tmp_path / "label_shop.py").write_text(BOUGHT)
    words = ["benchmark", "--query", "uq", "--seeds", "3", "--label", "label_shop:Bought", *SMALL]
    done = run_command(tmp_path, *words)
    assert done.code == 2
    said = one_line(done.err)
    assert "2 arms (uq, random) x 3 seeds = 6 runs, at most 84 labels" in said
    assert "no finished run in active_learning_logs has such labels" in said
    assert "Give --buy" in said
    assert not (tmp_path / "active_learning_logs").exists()
    run_words = ["run", "--label", "label_shop:Bought", "--quiet", "--steps", "1", "--set", "data.moons.samples=120"]
    assert run_command(tmp_path, *run_words).code == 0
    assert "with 1 at a time, as an earlier run in active_learning_logs took" in one_line(
        run_command(tmp_path, *words, "--jobs", "1").err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "uqq"], "did you mean 'uq'?"),
        (["--query", "uq", "--query", "uq"], "--query uq is given twice"),
        (["--query", "uq", "--set", "query.uk.max_samples=3"], "no arm has a query strategy 'uk': did you mean 'uq'?"),
        (["--query", "uq", "--set", "query.uq.max_sample=3"], "max_samples"),
        (["--query", "uq+uq"], "--query uq+uq: write the names of different strategies"),
        (["--query", "ceiling"], "this name is kept for the run on all labels"),
        (["none.toml"], "experiment file none.toml can't be read: there is no such file"),
        (["--query", "uq", "--name", "a/b"], "--name 'a/b' is not the name of a folder"),
        (["--query", "uq", "--plot", "a.jpg"], "a picture is written as .png or .svg"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_run(tmp_path, words, message):
    done = run_command(tmp_path, "benchmark", *words)
    assert done.code == 2
    assert message in one_line(done.err)
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_measures_nothing_is_refused_before_anything_is_run(tmp_path):
    rows = [f"{i},{i % 7},{i / 3 + i % 5:.3f}" for i in range(60)]
    (tmp_path / "numbers.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    (tmp_path / "e.toml").write_text('[data.csv]\npath = "numbers.csv"\ntarget = "y"\n[query.random]\n[metrology]\n')
    done = run_command(tmp_path, "benchmark", "e.toml")
    assert done.code == 2
    assert "nothing would be measured" in one_line(done.err)
    assert "--metrology regression" in one_line(done.err)
    assert not (tmp_path / "active_learning_logs").exists()


def test_a_seed_of_the_data_is_kept_unless_it_is_the_one_that_a_run_wrote(tmp_path):
    from alcore_report.arms import BenchmarkRequest, make_plan

    from alcore.plugins import installed

    def plan(seeds, *assign):
        (tmp_path / "e.toml").write_text(f"[driver]\nseed = {seeds[0]}\n[data.moons]\nseed = {seeds[1]}\n")
        request = BenchmarkRequest(tmp_path / "e.toml", ["uq"], {}, assign, {}, True, False, False)
        return make_plan(request, installed())

    assert "seed" not in plan((4, 4)).arms[0].tree["data"]["moons"]
    assert plan((4, 5)).arms[0].tree["data"]["moons"]["seed"] == 5
    assert "has a seed of its own" in plan((4, 5)).notes[0]
    assert plan((4, 4), "data.moons.seed=9").arms[0].tree["data"]["moons"]["seed"] == 9


@pytest.mark.parametrize("typed", [False, True])
def test_runs_may_call_the_function_that_the_user_allowed(tmp_path, typed):
    from alcore_report.arms import BenchmarkRequest, make_plan

    from alcore.plugins import installed

    function = "" if typed else "function = 'json:dumps'\n"
    (tmp_path / "e.toml").write_text(f"[data.space.variables.x]\nlow = 0\nhigh = 1\n[label.function]\n{function}")
    assign = ["label.function.function=json:dumps"] if typed else []
    plan = make_plan(
        BenchmarkRequest(tmp_path / "e.toml", ["gsx"], {}, assign, {}, True, False, not typed), installed()
    )
    assert [arm.allow_code for arm in plan.arms] == [True, True]
    (tmp_path / "e.toml").write_text("[data.moons]\n")
    plan = make_plan(BenchmarkRequest(tmp_path / "e.toml", ["uq"], {}, [], {}, True, False, True), installed())
    assert [arm.allow_code for arm in plan.arms] == [False, False]
    own = "alcore_random:RandomQuery"
    plan = make_plan(BenchmarkRequest(tmp_path / "e.toml", [own], {}, [], {}, True, False, False), installed())
    assert [(arm.stem, arm.allow_code) for arm in plan.arms] == [(own.replace(":", "."), True), ("random", False)]


def test_every_run_begins_with_the_weights_that_are_given(tmp_path):
    from alcore_report.arms import BenchmarkRequest, make_plan

    from alcore.plugins import installed

    (tmp_path / "e.toml").write_text('[driver]\nweights = "of_file"\nweights_sha256 = "0"\n')
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    request = BenchmarkRequest(
        tmp_path / "e.toml", ["uq"], {}, [], {"weights": str(tmp_path / "w.safetensors")}, True, True, False
    )
    for arm in make_plan(request, installed()).arms:
        assert arm.tree["driver"]["weights"] == str(tmp_path / "w.safetensors")
        assert arm.tree["driver"]["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("way", ["argument", "flag"])
def test_a_file_of_data_names_the_benchmark(tmp_path, way):
    from alcore_report.arms import BenchmarkRequest, make_plan

    from alcore.plugins import installed

    path = tmp_path / "tiny.csv"
    path.write_text("\n".join(["u,v,y", *(f"{place % 7},{place % 5},{'ab'[place % 2]}" for place in range(40))]))
    parts = {} if way == "argument" else {"data": [str(path)]}
    plan = make_plan(
        BenchmarkRequest(path if way == "argument" else None, ["uq"], parts, [], {}, True, False, False, "y"),
        installed(),
    )
    assert plan.data == "tiny"
    assert [arm.tree["data"]["csv"]["target"] for arm in plan.arms] == ["y", "y"]


def test_benchmark_has_the_flags_of_run(tmp_path):
    def flags(command):
        text = run_command(tmp_path, command, "--help").out
        return {word.strip(",") for line in text.splitlines() for word in line.split()[:2] if word.startswith("--")}

    not_for_many = {"--run-id", "--resume", "--in-doubt", "--other-ranks", "--quiet", "-q"}
    assert flags("run") - not_for_many <= flags("benchmark")


def test_everything_asks_for_all_that_is_left(tmp_path):
    """And runs with other names than ARM-SEED are of the arm of their query strategies."""
    words = ["--set", "data.moons.samples=50", "--set", "data.moons.initial=0.2", "--steps", "1", "--run-id", "all"]
    assert run_command(tmp_path, "run", "--query", "everything", "--quiet", *words).code == 0
    run = Run(tmp_path / "active_learning_logs" / "all")
    assert len({request["sample"] for request in run.requests()}) == 40
    assert {request["state"] for request in run.requests()} == {"labeled"}
    assert run_command(tmp_path, "run", "--query", "random", "--quiet", *words[:-1], "some").code == 0
    done = run_command(tmp_path, "compare", "all", "so", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert list(result["axes"][0]["arms"]) == ["everything", "random"]
    assert result["baseline"] == "random"


def test_signal_after_the_last_cell_is_not_swallowed(tmp_path, monkeypatch):
    states = itertools.chain(["new", "new"], itertools.repeat("done"))
    cell = cells.Cell("uq", 0, tmp_path, tmp_path / "uq.toml", tmp_path / "log", 1, 1, False)
    monkeypatch.setattr(cells.Cell, "state", lambda _cell: next(states))
    clock = SimpleNamespace(sleep=lambda _seconds: os.kill(os.getpid(), signal.SIGINT), monotonic=time.monotonic)
    monkeypatch.setattr(cells, "time", clock)
    with pytest.raises(cells.CellsInterrupted):
        cells.run_cells([cell], 1, lambda _text: None)
