"""One run in the terminal while it goes on; plain lines where there is no terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alcore.errors import RunLockedError
from alcore.store import Run
from alcore_web.runs import Detail, MetricCurve, detail_of
from alcore_web.text import asked_for, duration, label_of, number

EXIT_CODES = {"done": 0, "failed": 1, "stopped": 1, "unreadable": 1, "waiting": 3, "interrupted": 130}
"""The exit code of `RunWatch.follow` by what the run has come to."""
_STYLES = {"running": "bold blue", "done": "bold green", "failed": "bold red"}
_BARS = "▁▂▃▄▅▆▇█"
_EVERY = 0.5
_MOST_CURVES, _MOST_PICKS = 6, 5


class RunWatch:
    """Follows one run until it ends.

    Parameters
    ----------
    run
        The run.
    console
        Where it is shown; stdout if it is None.
    sleep
        Waits between two looks, given seconds.
    """

    def __init__(self, run: Run, console: Console | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._run = run
        self._console = console or Console(highlight=False)
        self._sleep = sleep

    def follow(self) -> int:
        """Show the run until it has ended, and return the exit code that says how."""
        last = self._follow_live() if self._console.is_terminal else self._follow_plain()
        return EXIT_CODES.get(last.row.outcome, 1)

    def _look(self) -> Detail | None:
        """Return what there is to show; None where the run's process was stopped while it was writing."""
        try:
            return detail_of(self._run, self._run.folder.resolve().name)
        except RunLockedError:
            return None

    def _follow_live(self) -> Detail:
        shown: Detail | None = None
        # an own screen, since a terminal that is made narrower breaks the lines of what was drawn before
        with Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while shown is None or shown.row.lives:
                if shown is not None:
                    self._sleep(_EVERY)
                shown = self._look() or shown
                if shown is None:
                    self._sleep(_EVERY)
                    continue
                live.update(picture(shown, *self._console.size), refresh=True)
        self._console.print(picture(shown, self._console.width, 1000))
        return shown

    def _follow_plain(self) -> Detail:
        printed, doing = 0, ""
        for place in itertools.count():
            if place:
                self._sleep(_EVERY)
            if (detail := self._look()) is None:
                continue
            if not doing:
                self._say(headline(detail))
            for step in detail.steps[printed:]:
                self._say(step_line(step, detail.curves))
            printed = len(detail.steps)
            if not detail.row.lives:
                self._say(ending(detail))
                return detail
            if detail.doing != doing and detail.doing.split(",")[:2] != doing.split(",")[:2]:
                self._say(detail.doing)
            doing = detail.doing or doing or "starting"
        raise AssertionError("the loop has no end")

    def _say(self, text: str) -> None:
        self._console.print(_plain(text), markup=False, soft_wrap=True)


def headline(detail: Detail) -> str:
    """Return which run it is, what it consists of, and its state."""
    parts = ", ".join(f"{kind} {name}" for kind, name in detail.row.parts.items() if name)
    return f"Run {detail.row.name}: {detail.row.outcome}" + (f"; {parts}" if parts else "")


def ending(detail: Detail) -> str:
    """Return how the run has ended."""
    row = detail.row
    left = f", {detail.untrained} of them not trained on" if detail.untrained else ""
    return f"Run {row.name}: {row.outcome}, {row.steps} steps, {row.labels} labels{left}" + (
        f" ({row.reason})" if row.reason else ""
    )


def step_line(step: dict[str, Any] | Any, curves: Sequence[MetricCurve]) -> str:
    """Return a finished step on one line.

    Parameters
    ----------
    step
        Its record.
    curves
        Of the run.
    """
    samples = step.get("train_samples")
    measured = [
        f"{curve.name.rpartition(': ')[2]} {value:.4g}"
        for curve in curves[:_MOST_CURVES]
        for x, value in curve.points[-1000:]
        if x == samples
    ]
    counts = [f"{step[name]} {name}" for name in ("requested", "labeled", "failed", "refused") if step.get(name)]
    return ", ".join([f"step {step.get('step')}: {number(samples)} samples", *dict.fromkeys(measured), *counts])


def picture(detail: Detail, width: int, height: int) -> RenderableType:
    """Return everything that is shown of a run, for a terminal.

    Parameters
    ----------
    detail
        The run.
    width, height
        Of the terminal, in characters.
    """
    row, parts = detail.row, detail.row.parts
    state = row.outcome, _STYLES.get(row.outcome, "bold yellow")
    title = Text.assemble("Run ", (_plain(row.name), "bold"), "  ", state)
    if detail.doing:
        title.append(f"  {detail.doing}")
    blocks: list[RenderableType] = [title]
    if row.reason:
        blocks.append(Text(_plain(row.reason), "red" if row.outcome == "failed" else "dim"))
    blocks.append(Text(_plain(", ".join(f"{kind} {name}" for kind, name in parts.items() if name)), "dim"))
    counts = f"{row.steps}" + (f" of {row.limit}" if row.limit else "") + f" steps, {row.labels} labels"
    counts += "".join(f", {detail.requested[state]} {word}" for state, word in _PENDING if detail.requested[state])
    counts += f", {detail.untrained} labels not trained on" if detail.untrained else ""
    if detail.seconds_left and row.limit and row.steps < row.limit:
        counts += f", about {duration(detail.seconds_left)} left"
    if row.limit:
        line = Table.grid()  # a bar by itself has no end of line
        line.add_row(ProgressBar(row.limit, min(row.steps, row.limit), width=min(width, 80)))
        blocks.append(line)
    blocks.append(Text(counts))
    if detail.curves:
        blocks += [Text(""), _curves(detail.curves[:_MOST_CURVES], width)]
        if (more := len(detail.curves) - _MOST_CURVES) > 0:
            blocks.append(Text(f"... {more} more: alcore dash draws them", "dim"))
    if detail.picks:
        blocks += [Text(""), _picks(detail)]
    used = (
        sum(3 if isinstance(block, Table) else 1 for block in blocks) + len(detail.curves[:_MOST_CURVES]) + _MOST_PICKS
    )
    lines = [Text(_plain(line), "dim", no_wrap=True, overflow="ellipsis") for line in detail.log[-8:]]
    room = max(0, min(len(lines), height - used))
    if room:
        blocks += [Text(""), *lines[-room:]]
    return Group(*blocks)


_PENDING = (("open", "pending"), ("failed", "failed"))


def _curves(curves: Sequence[MetricCurve], width: int) -> Table:
    """Return metrics as a table with their curves in one line each."""
    table = Table.grid(padding=(0, 2))
    table.add_column("metric", no_wrap=True, overflow="ellipsis", max_width=width // 2)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True)
    names = max(min(len(curve.name), width // 2) for curve in curves)
    room = max(1, min(40, width - names - 14))
    for curve in curves:
        values = [value for _, value in curve.points]
        table.add_row(Text(_plain(curve.name)), Text(f"{values[-1]:.4g}"), Text(sparkline(values, room), "blue"))
    return table


def sparkline(values: Sequence[float], width: int) -> str:
    """Return values as bars of one line of text, each character the mean of those that fall in it."""
    if len(values) > width:
        ends = [round(place * len(values) / width) for place in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    low, high = min(values), max(values)
    if high <= low:
        return _BARS[3] * len(values)
    return "".join(_BARS[min(7, int((value - low) / (high - low) * 8))] for value in values)


def _picks(detail: Detail) -> Table:
    counts = ", ".join(f"{count} {state}" for state, count in detail.picked.items() if count)
    table = Table(
        title=f"Last picks, step {detail.picked_in}: {counts}", title_justify="left", title_style="", box=None,
        padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    for name in ("rank", "sample", "strategy", "score", "label"):
        right = name in ("rank", "score")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    for pick in detail.picks[:_MOST_PICKS]:
        label = label_of(pick) or ("pending" if pick["state"] == "open" else pick["state"])
        cells = (str(pick["rank"]), asked_for(pick), pick["strategy"], number(pick["score"]), label)
        table.add_row(*(Text(_plain(cell)) for cell in cells))
    return table


def _plain(text: str) -> str:
    """Return text without control characters, which could steer the terminal: it may come from a stranger."""
    return "".join(character if character.isprintable() else " " for character in text)
