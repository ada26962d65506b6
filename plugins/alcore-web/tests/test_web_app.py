"""Pages: what they show is what the records say, and what came from elsewhere is text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from alcore_web import Runs, create_app
from fastapi.testclient import TestClient

from alcore.store import Run


class Page(HTMLParser):
    """A page as elements: each a tag, its attributes, and all text inside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self._open: list[tuple[str, dict, list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in ("meta", "link", "input"):
            self._open.append(element)

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element[2].append(data)

    def texts(self, tag: str) -> list[str]:
        return [" ".join("".join(text).split()) for name, _, text in self.elements if name == tag]

    def rows(self) -> list[str]:
        return self.texts("tr")

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for one, attributes, _ in self.elements if one == tag and name in attributes]


@pytest.fixture
def ask(root):
    client = TestClient(create_app(Runs(root)))
    return lambda address: client.get(address)


def test_list_has_a_line_a_run(ask):
    page = Page(ask("/").text)
    (moons,) = [row for row in page.rows() if row.startswith("moons")]
    assert re.fullmatch(r"moons(f1 0\.\d{3})done3/321\1moonsuqmlp0\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", moons)
    assert set(page.attributes("input", "value")) >= {"moons", "bench/uq-0"}
    assert "/run/bench/uq-0" in page.attributes("a", "href")


def test_list_is_searched_by_words(ask):
    page = Page(ask("/?q=UQ+done+mlp").text)
    assert page.attributes("input", "value") == ["UQ done mlp", "moons"]
    assert "None of 5 runs has" in ask("/?q=nothing").text


def test_empty_folder_says_how_to_make_a_run(tmp_path):
    text = TestClient(create_app(Runs(tmp_path / "a b"))).get("/").text
    assert "There are no runs here yet." in text
    assert f"--root &#39;{tmp_path}/a b&#39;" in text


def test_page_of_a_run_shows_its_records(ask, root):
    page, run = Page(ask("/run/moons").text), Run(root / "moons")
    for step in run.steps():
        loss = f"{step['losses']['loss']:.4g}"
        assert any(row.startswith(f"{step['step']}{step['train_samples']}77") and loss in row for row in page.rows())
    for request in run.requests(2):
        start = f"{request['rank']}{request['sample']}classifier_uq_query{request['score']:.4g}labeledpool's own"
        assert any(row.startswith(start) for row in page.rows())
    chart = page.attributes("svg", "aria-label")[0]
    first, last = run.records()["f1_metrology"][0], run.records()["f1_metrology"][-1]
    assert f"from {first['f1']:.4g} with {first['train_samples']} to {last['f1']:.4g} with" in chart
    titles = [title for title in page.texts("title") if title.startswith("f1_metrology: f1: ")]
    assert titles == [
        f"f1_metrology: f1: {record['f1']:.4g} with {record['train_samples']}"
        for record in run.records()["f1_metrology"]
    ]


def test_text_of_strangers_stays_text(ask, root):
    (root / "moons").rename(root / "<b>bold'\"")
    for address in ("/", "/run/reasons", "/run/failed", "/run/%3Cb%3Ebold'%22", "/compare?run=<b>bold'\"&run=<i>",
                    "/?q=<i>x", "/run/<i>x", "/no<i>page"):  # fmt: skip
        html = ask(address).text
        assert not re.search(r"<script>|<b>|<i>|\son\w+=", html), address
        assert len(re.findall("<script ", html)) == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in ask("/run/reasons").text
    assert "/run/%3Cb%3Ebold%27%22" in ask("/").text


def test_comparison_shows_runs_side_by_side(ask):
    page = Page(ask("/compare?run=bench/uq-0&run=bench/uq-1&run=gone").text)
    assert [row[:10] for row in page.rows()[1:]] == ["bench/uq-0", "bench/uq-1"]
    assert page.texts("figcaption")[0] == "toy_metrology: f1"
    assert "gone: there is no run" in "".join(page.texts("p"))
    assert {"line s0", "line s1"} <= set(page.attributes("path", "class"))
    assert "Mark runs in" in ask("/compare").text


def test_marks_stay_when_the_list_is_asked_for_again(ask):
    html = ask("/live/runs?run=moons").text
    assert re.findall(r'value="([^"]+)" aria-label="[^"]+" checked', html) == ["moons"]


@pytest.mark.parametrize("address", ["/run/moons", "/", "/compare?run=moons"])
def test_what_a_page_has_is_not_sent_again(ask, address):
    (again,) = Page(ask(address).text).attributes("div", "hx-get")
    assert ask(again).status_code == 204
    other = ask(again.replace("seen=", "seen=0"))
    assert other.status_code == 200
    assert Page(other.text).attributes("div", "hx-get") == [again]


def test_a_live_page_changes_with_the_run(paced, tmp_path):
    client = TestClient(create_app(Runs(tmp_path / "root")))
    html = client.get("/run/live").text
    assert "0 of 3 steps · step 0, labeling, 0 of 4 labels" in html
    assert 'hx-trigger="every 2s"' in html
    (again,) = Page(html).attributes("div", "hx-get")
    paced.go_on()
    paced.wait()
    assert "1 of 3 steps · step 1, labeling" in client.get(again).text
    paced.end()
    html = client.get(again).text
    assert "all 3 steps are done" in html
    assert 'hx-trigger="every 10s"' in html


def test_a_damaged_run_is_said_to_be(ask, root):
    (root / "moons" / "run.db").write_bytes(b"no database")
    assert ask("/run/moons").status_code == 200
    assert "file is not a database" in ask("/run/moons").text
    assert "file is not a database" in ask("/").text
    assert "file is not a database" in ask("/compare?run=moons&run=reasons").text


@pytest.mark.parametrize(
    "address",
    ["/run/../../etc/passwd", "/run/%2e%2e/x", "/run//etc", "/static/../app.py", "/static/%2e%2e%2fapp.py", "/docs",
     "/openapi.json", "/static/nothing"],
)  # fmt: skip
def test_nothing_else_is_served(ask, address):
    assert ask(address).status_code == 404
