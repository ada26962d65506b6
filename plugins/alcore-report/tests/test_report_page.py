"""`alcore report`: what is on the page equals what the run has, everything is inert, and what can't be made is said."""

import html.parser
import json
import re
import shutil
import sqlite3
import xml.etree.ElementTree as ElementTree

import pytest
from alcore_testing import run_command

from alcore.store import Run

SCRIPT = "<script>alert(1)</script>"
SMALL = ["--set", "data.moons.samples=120", "--steps", "4", "--set", "query.uq.max_samples=6"]
CODE = f"""
import torch
from alcore import Data, DataInfo, Failed, TensorPool
from alcore.strategies import BaseLabel

class Faulty(BaseLabel):
    def label(self, queue_to_label, serialize_queue, *args, **kwargs):
        while not queue_to_label.empty():
            sample = int(queue_to_label.get())
            bad = sample % 3 == 0
            serialize_queue.put(Failed(sample, "{SCRIPT} & no mesh", cost=0.5) if bad else sample)

def images():
    torch.manual_seed(0)
    inputs, targets = torch.rand(60, 6, 6), torch.arange(60) % 2
    info = DataInfo("classification", 2, 0, (6, 6), ("{SCRIPT}", "$x_$"))
    pool = TensorPool(inputs, targets, labeled=range(8), info=info)
    return Data(pool, TensorPool(inputs, targets, labeled=range(60), info=info), info=info)

class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
    def forward(self, inputs):
        return self.layers(inputs)

def fields():
    torch.manual_seed(0)
    inputs = torch.rand(40, 2)
    targets = inputs.sum(1)[:, None, None] + torch.arange(30.0).reshape(1, 5, 6) / 30
    info = DataInfo("regression", 0, 2, (2,))
    return Data(
        TensorPool(inputs, targets, labeled=range(8), info=info),
        TensorPool(inputs, targets, labeled=range(40), info=info), info=info,
    )

class Field(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 30), torch.nn.Unflatten(1, (5, 6)))
    def forward(self, inputs):
        return self.layers(inputs)
"""


class Page(html.parser.HTMLParser):
    """The tables of each figure, the tags, the ids, and the texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.ids, self.links, self.text = {}, [], [], [], []
        self._figure, self._cell = "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        by_name = dict(attributes)
        self.tags.append((tag, by_name))
        self.ids += [by_name["id"]] if "id" in by_name else []
        self.links += [by_name[name] for name in ("src", "href", "xlink:href") if name in by_name]
        if tag in ("figure", "section", "details") and "id" in by_name:
            self._figure = by_name["id"]
        if tag == "tr":
            self.tables.setdefault(self._figure, []).append([])
        if tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag == "figure":
            self._figure = ""
        if tag in ("td", "th"):
            self.tables[self._figure][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: moons; images with classes that are markup, and labels that fail; fields; one that is built in Python."""
    base = tmp_path_factory.mktemp("runs")
    (base / "made_up_parts.py").write_text(CODE)
    images = ["--data", "made_up_parts:images", "--learner", "made_up_parts:Flat", "--label", "made_up_parts:Faulty"]
    fields = ["--data", "made_up_parts:fields", "--learner", "made_up_parts:Field", "--query", "random"]
    for flags in (
        ["--run-id", "moons", *SMALL, "--metrology", "f1", "--metrology", "classification"],
        ["--run-id", "images", *images, "--steps", "3", "--set", "driver.max_failure_rate=1", "--metrology", "f1"],
        ["--run-id", "fields", *fields, "--steps", "2", "--metrology", "fields"],
    ):
        done = run_command(base, "run", *flags)
        assert done.code == 0, done.err
    logs = base / "active_learning_logs"
    shutil.copytree(logs / "fields", logs / "python")
    (logs / "python" / "experiment.toml").write_text('[python.learner]\nclass = "my.Net"\n')
    return base


@pytest.fixture(scope="module")
def pages(folder):
    """The pages of the runs, as files and parsed."""
    by_name = {}
    for name in ("moons", "images", "fields", "python"):
        done = run_command(folder, "report", name, "--allow-code", *(["--no-png"] if name != "moons" else []))
        assert done.code == 0, done.err
        text = (folder / f"{name}-report.html").read_text(encoding="utf-8")
        by_name[name] = (text, Page(text), done.out)
    return by_name


def test_curves_have_the_numbers_of_the_records(folder, pages):
    records = Run(folder / "active_learning_logs" / "moons").records()
    tables = pages["moons"][1].tables
    for strategy, metric in (("f1_metrology", "f1"), ("classification_metrology", "ece")):
        (key,) = (table for table in tables if table.startswith("metric-") and table.endswith(f"_2e{metric}"))
        assert tables[key][0] == ["step", "labeled samples", metric]
        assert tables[key][1:] == [
            [str(record["step"]), str(record["train_samples"]), f"{record[metric]:.6g}"] for record in records[strategy]
        ]
    # what both strategies measure alike is there once
    assert sum(table.endswith("accuracy") and "balanced" not in table for table in tables) == 1


def test_picks_times_and_scores_are_those_of_the_run(folder, pages):
    run, tables = Run(folder / "active_learning_logs" / "moons"), pages["moons"][1].tables
    requests = run.requests()
    assert sum(int(row[1]) for row in tables["classes"][1:]) == len(requests) == 24
    scores = [request["score"] for request in requests if request["step"] == 2]
    (row,) = (row for row in tables["scores"] if row[0] == "2")
    assert [row[2], row[4], row[5]] == [f"{min(scores):.6g}", f"{max(scores):.6g}", "6"]
    training = sum(step["seconds"]["training"] for step in run.steps())
    assert ["training", f"{training:.6g}"] == next(row for row in tables["time"] if row[0] == "training")[:2]
    by_name = {row[0]: int(row[1]) for row in tables["map"][1:]}
    assert by_name == {"rest": 90, "labeled at the start": 6, "picked": 24}


def test_calibration_of_the_rebuilt_learner_is_the_one_that_was_measured(folder, pages):
    last = Run(folder / "active_learning_logs" / "moons").records()["classification_metrology"][-1]
    (found,) = re.findall(r"Calibration error: ([\d.]+)\.", pages["moons"][1].words)
    # the weights of the last checkpoint are those of the last record; ten bins here, fifteen there
    assert float(found) == pytest.approx(last["ece"], abs=0.05)
    confusion = pages["moons"][1].tables["confusion"][1:]
    assert [[int(cell) for cell in row[1:]] for row in confusion] == last["confusion"]


@pytest.mark.parametrize("name", ["moons", "images", "fields", "python"])
def test_a_page_is_inert_and_whole(pages, name):
    text, page, _ = pages[name]
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    assert not any(key.startswith("on") for _, known in page.tags for key in known)
    assert all(link.startswith(("#", "data:image/png;base64,")) or link == "data:," for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    figures = [known for tag, known in page.tags if tag == "div" and known.get("role") == "img"]
    assert figures
    assert all(len(known["aria-label"]) > 30 for known in figures)
    assert "#0a0b" not in text  # each color is a variable of the page


def test_names_and_reasons_are_text(pages):
    text, page, out = pages["images"]
    assert SCRIPT not in text
    assert f"{SCRIPT} & no mesh" in page.words
    assert {row[0] for row in page.tables["classes"][1:]} == {SCRIPT, "$x_$"}
    assert "$x_$" in text
    assert "Labels fail" in out


def test_failures_are_told_with_reasons_and_cost(folder, pages):
    run, page = Run(folder / "active_learning_logs" / "images"), pages["images"][1]
    refused = run.refused()
    rows = [row for table in page.tables.values() for row in table]
    assert [f"{SCRIPT} & no mesh", "infrastructure", str(len(refused))] in rows
    assert page.tables["cost"][-1][1:] == [str(len(run.requests()) - len(refused)), f"{len(refused) / 2:g}"]


def test_picked_images_are_shown_with_their_labels(folder, pages):
    images = [known for tag, known in pages["images"][1].tags if tag == "img"]
    requests = Run(folder / "active_learning_logs" / "images").requests()
    assert [image["alt"] for image in images] == [f"Input of sample {request['sample']}" for request in requests]


def test_worst_and_median_field_have_the_errors_of_the_records(folder, pages):
    last = Run(folder / "active_learning_logs" / "fields").records()["fields_metrology"][-1]
    worst, median = (float(text) for text in re.findall(r"Relative L2 error ([\d.]+): the", pages["fields"][1].words))
    assert median <= worst
    assert last["p95_relative_l2"] <= worst * 1.001


def test_of_a_run_built_in_python_the_page_has_the_rest_and_says_why(pages):
    _, page, out = pages["python"]
    assert "No map of the pool" in out
    assert "built in Python" in page.words
    assert "time" in page.ids
    assert not {"map", "field-worst"} & set(page.ids)


def test_the_same_run_gives_the_same_bytes_and_is_not_held(folder, pages):
    done = run_command(folder, "report", "moons", "--output", "again.html")
    assert done.code == 0, done.err
    assert (folder / "again.html").read_text(encoding="utf-8") == pages["moons"][0]
    assert (folder / "again.png").read_bytes() == (folder / "moons-report.png").read_bytes()
    connection = sqlite3.connect(folder / "active_learning_logs" / "moons" / "run.db", timeout=0)
    connection.execute("BEGIN EXCLUSIVE")  # nobody else has it open in a transaction
    connection.rollback()
    connection.close()


def test_a_run_without_a_finished_step_has_a_page(folder):
    done = run_command(folder, "run", "--run-id", "none", *SMALL, "--steps", "0")
    assert done.code == 0, done.err
    done = run_command(folder, "report", "none")
    assert done.code == 0, done.err


def test_a_page_without_advice_says_what_was_checked(folder, pages):
    run, page = Run(folder / "active_learning_logs" / "fields"), pages["fields"][1]
    count = len(run.requests())
    assert f"No advice. What was checked: {count} of {count} requests have a label;" in page.words


def test_a_folder_has_the_verdict_and_a_section_for_each_run(folder):
    for name in ("uq-0", "random-0"):
        shutil.copytree(folder / "active_learning_logs" / "moons", folder / "bench" / name)
    compared = json.loads(run_command(folder, "compare", "bench", "--json").out)
    done = run_command(folder, "report", "bench")
    assert done.code == 0, done.err
    page = Page((folder / "bench-report.html").read_text(encoding="utf-8"))
    (verdict,) = (verdict["sentence"] for verdict in compared["axes"][0]["verdicts"].values())
    assert verdict in page.words
    assert verdict in done.out
    assert {"run-uq_2d0", "run-random_2d0"} <= set(page.ids)
    final = compared["axes"][0]["arms"]["uq"]["final"]["value"]
    assert page.tables["comparison-labels"][-1][1] == f"{final:.6g}" or final == pytest.approx(
        float(page.tables["comparison-labels"][-1][1]), abs=1e-5
    )
    assert (folder / "bench-report.png").read_bytes().startswith(b"\x89PNG")


def test_runs_in_a_folder_of_a_folder_are_seen_by_runs_compare_report_and_dash(folder):
    for name in ("uq-0", "random-0"):
        shutil.copytree(folder / "active_learning_logs" / "moons", folder / "outer" / "bench2" / name)
    told = json.loads(run_command(folder, "runs", "--root", "outer", "--json").out)
    names = {run["run_id"] for run in told}
    assert names == {"bench2/uq-0", "bench2/random-0"}
    assert all(run["data"] == "moons" for run in told)
    inside = json.loads(run_command(folder, "compare", "outer/bench2", "--json").out)
    assert json.loads(run_command(folder, "compare", "outer", "--json").out) == inside
    assert run_command(folder, "report", "outer").code == 0
    page = Page((folder / "outer-report.html").read_text(encoding="utf-8"))
    assert {"run-bench2_2fuq_2d0", "run-bench2_2frandom_2d0"} <= set(page.ids)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert "bench2/uq-0" in page.words
    shutil.copytree(folder / "active_learning_logs" / "moons", folder / "outer" / "own")
    told = json.loads(run_command(folder, "compare", "outer", "--json").out)
    assert told["left_out"] == [{"run": "bench2/", "reason": "compare its 2 runs by themselves: outer/bench2"}]
    assert len(json.loads(run_command(folder, "runs", "--root", "outer", "--json").out)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["moon5"], "there is no run 'moon5'"),
        (["moons", "--output", "page.pdf"], "name it page.html"),
        (["moons", "--output", "missing/page.html"], "can't be written"),
    ],
)
def test_bad_words_are_refused_in_one_message(folder, words, message):
    done = run_command(folder, "report", *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_picks_of_a_table_are_shown_as_in_its_file(tmp_path):
    rows = [[place, f"<i>{place % 3}</i>", "yes" if place % 2 else "no"] for place in range(80)]
    table = "size,kind,answer\n" + "".join(f"{size},{kind},{answer}\n" for size, kind, answer in rows)
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    words = ["--target", "answer", "--steps", "2", "--run-id", "mine", "--quiet"]
    assert run_command(tmp_path, "run", "table.csv", *words).code == 0
    assert run_command(tmp_path, "report", "mine", "--no-png").code == 0
    page = (tmp_path / "mine-report.html").read_text(encoding="utf-8")
    run = Run(tmp_path / "active_learning_logs" / "mine")
    shown = re.findall(r"size: (\d+); kind: ([^<\n]*)", page)
    assert len(shown) == len(run.requests()) > 0
    assert all(kind == f"&lt;i&gt;{int(size) % 3}&lt;/i&gt;" for size, kind in shown)
