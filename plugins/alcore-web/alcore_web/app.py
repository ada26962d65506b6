"""The pages: a list of runs, one run, and several runs side by side.

The part of a page that changes is asked for again every few seconds, and answered with nothing where it is the same.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alcore.errors import UsageError
from alcore_web.charts import STYLES, Line, key, line_chart
from alcore_web.runs import MOST_REASONS, MissingRunError, Row, Runs
from alcore_web.text import asked_for, duration, label_of, number, seconds

MOST_COMPARED = 24
MOST_CHARTS = 12
MOST_METRICS = 6
"""Columns of metrics in a comparison."""
MOST_STEPS = 15
_STATIC = {
    "dash.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "style.css": "text/css",
}
_OUTCOMES = {
    "running": "a process is writing to it",
    "done": "it has ended",
    "failed": "an error ended it, or its labels keep failing",
    "waiting": "alcore resume goes on once labels have arrived",
    "interrupted": "it was asked to end; alcore resume goes on",
    "stopped": "its process is gone and recorded no reason; alcore resume goes on",
    "unreadable": "it is damaged, or no run of a version that is known here",
}
_OFTEN, _SELDOM = "2s", "10s"
Names = Annotated[list[str], Query(max_length=1000)]


def create_app(runs: Runs) -> FastAPI:
    """Return the application; who may ask it is for a `Guard` around it to decide.

    Parameters
    ----------
    runs
        What is shown.
    """
    app = FastAPI(title="alcore", openapi_url=None, docs_url=None, redoc_url=None)
    pages = _Pages(runs)
    files = {name: resources.files("alcore_web").joinpath("static", name).read_bytes() for name in _STATIC}

    @app.get("/")
    def index(q: str = "", run: Names = []) -> Response:  # noqa: B006 - FastAPI's way to say that it may be missing
        return pages.whole(pages.index(q, run))

    @app.get("/live/runs")
    def live_index(seen: str = "", q: str = "", run: Names = []) -> Response:  # noqa: B006
        return pages.live(pages.index(q, run), seen)

    @app.get("/run/{name:path}")
    def run(name: str) -> Response:
        return pages.whole(pages.run(name, verify=True))

    @app.get("/live/run/{name:path}")
    def live_run(name: str, seen: str = "") -> Response:
        return pages.live(pages.run(name, verify=False), seen)

    @app.get("/compare")
    def compare(run: Names = []) -> Response:  # noqa: B006
        return pages.whole(pages.compare(run))

    @app.get("/live/compare")
    def live_compare(seen: str = "", run: Names = []) -> Response:  # noqa: B006
        return pages.live(pages.compare(run), seen)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in files:
            return pages.whole(pages.missing(f"there is no file {name!r}."))
        return Response(files[name], media_type=f"{_STATIC[name]}; charset=utf-8")

    @app.exception_handler(404)
    def missing(request: Request, _error: Exception) -> Response:
        return pages.whole(pages.missing(f"there is no page {request.url.path!r}."))

    return app


class _Part(NamedTuple):
    """What changes of a page.

    Parameters
    ----------
    title
        Of the page.
    html
        The part.
    address
        Where it is asked for again; empty where it never is.
    every
        How often.
    status
        Of the answer.
    page
        The template of the page around it.
    facts
        What that page needs besides.
    """

    title: str
    html: Markup
    address: str = ""
    every: str = _SELDOM
    status: int = 200
    page: str = "page.html"
    facts: dict[str, Any] = {}  # noqa: RUF012 - which nothing changes

    @property
    def seen(self) -> str:
        """A digest of the part, by which a page says what it has."""
        return hashlib.blake2b(_encoded(self.html), digest_size=8).hexdigest()

    @property
    def again(self) -> str:
        """The address, with what the page has."""
        return f"{self.address}{'&' if '?' in self.address else '?'}seen={self.seen}" if self.address else ""


class _Pages:
    """Makes pages of what the reader finds."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        usual = str(runs.root) == "active_learning_logs"
        self._where = "" if usual else f" --root {shlex.quote(str(runs.root))}"
        self._templates = Environment(
            loader=PackageLoader("alcore_web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"number": number, "seconds": seconds, "duration": duration, "address": _address}
        self._templates.globals |= {"outcomes": _OUTCOMES, "key": key, "label_of": label_of, "asked_for": asked_for}
        self._templates.globals["most_reasons"] = MOST_REASONS

    # -- answers ---------------------------------------------------------------------------------------------

    def whole(self, part: _Part) -> Response:
        """Return a page."""
        html = self._html(part.page, part=part, root=str(self._runs.root), **part.facts)
        return HTMLResponse(_encoded(html), part.status)

    def live(self, part: _Part, seen: str) -> Response:
        """Return the part of a page that asks for it again; nothing, with 204, where it has that already."""
        if part.seen == seen:
            return Response(status_code=204)
        return HTMLResponse(_encoded(self._html("live.html", part=part)))

    def _html(self, template: str, **facts: Any) -> Markup:
        return Markup(self._templates.get_template(template).render(facts))  # the templates escape

    # -- parts -----------------------------------------------------------------------------------------------

    def index(self, wanted: str, marked: Sequence[str]) -> _Part:
        """List the runs in which each word that is wanted stands."""
        words = wanted.lower().split()
        every = self._runs.rows()
        rows = [row for row in every if all(word in _text(row) for word in words)]
        html = self._html("runs.html", rows=rows, all=len(every), marked=set(marked), wanted=wanted, where=self._where)
        often = any(row.lives for row in every)
        address = "/live/runs" + (f"?{urlencode({'q': wanted})}" if wanted else "")
        facts = {"wanted": wanted}
        return _Part("Runs", html, address, _OFTEN if often else _SELDOM, page="index.html", facts=facts)

    def run(self, name: str, *, verify: bool) -> _Part:
        """Show one run."""
        address = f"/live/run/{_address(name)}"
        try:
            detail = self._runs.detail(name, verify=verify)
        except MissingRunError as error:
            return self.missing(str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a run is said on its page
            return self._fault(f"Run {name}", f"It can't be shown: {_message(error)}")._replace(address=address)
        charts = [
            (
                curve.name,
                line_chart([Line(curve.name, curve.points)], title=curve.name, x_label="labeled samples"),
                curve.points[-1][1],
            )
            for curve in detail.curves
        ]
        steps = list(detail.steps[-MOST_STEPS:])[::-1]
        html = self._html(
            "run.html",
            detail=detail,
            row=detail.row,
            charts=charts[:MOST_CHARTS],
            more=[title for title, _, _ in charts[MOST_CHARTS:]],
            steps=steps,
            phases=list(dict.fromkeys(phase for step in steps for phase in step.get("seconds", {}))),
        )
        return _Part(f"Run {name}", html, address, _OFTEN if detail.row.lives else _SELDOM)

    def compare(self, names: Sequence[str]) -> _Part:
        """Show runs side by side."""
        wanted = list(dict.fromkeys(names))
        details, faults = [], []
        for name in wanted[:MOST_COMPARED]:
            try:
                details.append(self._runs.detail(name))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others are shown
                faults.append(f"{name}: {_message(error)}")
        if len(wanted) > MOST_COMPARED:
            faults.append(f"{len(wanted)} runs are marked, and the first {MOST_COMPARED} are shown.")
        styles = _styles([detail.row for detail in details])
        titles = list(dict.fromkeys(curve.name for detail in details for curve in detail.curves))
        charts = []
        for title in titles[:MOST_CHARTS]:
            lines = [
                Line(detail.row.name, curve.points, style)
                for detail, style in zip(details, styles, strict=True)
                for curve in detail.curves
                if curve.name == title
            ]
            charts.append((title, line_chart(lines, title=title, x_label="labeled samples"), len(lines)))
        metrics = list(dict.fromkeys(metric for detail in details for metric in detail.row.metrics))
        html = self._html(
            "compare.html",
            details=list(zip(details, styles, strict=True)),
            faults=faults,
            charts=charts,
            more=titles[MOST_CHARTS:],
            metrics=metrics[:MOST_METRICS],
            more_metrics=metrics[MOST_METRICS:],
            shared=len(set(styles)) < len(styles),
            marked=urlencode([("run", name) for name in wanted]),
        )
        lives = any(detail.row.lives for detail in details)
        address = "/live/compare?" + urlencode([("run", name) for name in wanted])
        return _Part("Comparison", html, address, _OFTEN if lives else _SELDOM)

    def missing(self, message: str) -> _Part:
        """Say that there is no such page."""
        return self._fault("Not found", message, 404)

    def _fault(self, title: str, message: str, status: int = 200) -> _Part:
        return _Part(title, self._html("fault.html", title=title, message=message), status=status)


def _styles(rows: Sequence[Row]) -> list[int]:
    """Return the style of each run: one of its own; with more runs than styles, one for data, query and learner."""
    if len(rows) <= STYLES:
        return list(range(len(rows)))
    groups = [tuple(row.parts.get(kind, "") for kind in ("data", "query", "learner")) for row in rows]
    order = list(dict.fromkeys(groups))
    return [order.index(group) % STYLES for group in groups]


def _text(row: Row) -> str:
    return " ".join([row.name, row.outcome, row.reason, *row.parts.values()]).lower()


def _message(error: Exception) -> str:
    """Return what is wrong, with the class of an error that nobody wrote for users."""
    return str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"


def _address(name: str) -> str:
    return quote(name, safe="/")


def _encoded(html: str) -> bytes:
    return html.encode(errors="replace")  # what was read may hold lone surrogates
