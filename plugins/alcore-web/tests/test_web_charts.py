"""Charts: places of points, ticks, what is said of them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import alcore_web
import pytest
from alcore_web.charts import HEIGHT, STYLES, WIDTH, Line, key, line_chart, tick_text, ticks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_ticks_are_even_ascending_and_few_and_hold_all_values(values):
    ticks_found = ticks(values, 5)
    assert 2 <= len(ticks_found) <= 9
    assert all(a < b for a, b in pairwise(ticks_found))
    if max(map(abs, values)) < 1e100:
        slack = (ticks_found[1] - ticks_found[0]) * 1e-6
        assert ticks_found[0] - slack <= min(values) <= max(values) <= ticks_found[-1] + slack
    assert len({tick_text(tick, ticks_found) for tick in ticks_found}) == len(ticks_found)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.0, 1.0), "0.0 0.2 0.4 0.6 0.8 1.0"), ((50, 250), "50 100 150 200 250"), ((0.0005, 0.0017), "5e-4"),
     ((0.7, 0.78), "0.70 0.72 0.74 0.76 0.78"), ((3, 3), "2.6 2.8 3.0 3.2 3.4")],
)  # fmt: skip
def test_ticks_are_round(values, expected):
    ticks_found = ticks(values, 5)
    assert " ".join(tick_text(tick, ticks_found) for tick in ticks_found).startswith(expected)


@few
@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4), max_size=3))
def test_any_finite_points_are_drawn_inside(lines):
    svg = line_chart([Line("a<b>&\"'", points, i) for i, points in enumerate(lines)], title="t<", x_label="<x>")
    root = ElementTree.fromstring(str(svg))
    for path in root.iter("path"):
        if path.get("class", "").startswith("line"):
            places = re.findall(r"[ML](\S+) ([^\sL]+)", path.get("d"))
            assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in places)


def test_points_stand_where_their_values_are():
    svg = ElementTree.fromstring(str(line_chart([Line("a", [(0, 0.0), (10, 1.0)])], title="t", x_label="x")))
    (line,) = [element for element in svg.iter("path") if element.get("class") == "line s0"]
    grid = [float(element.get("y1")) for element in svg.iter("line")]
    ends = [tuple(map(float, pair.split())) for pair in line.get("d")[1:].split("L")]
    assert [y for _, y in ends] == [max(grid), min(grid)]
    assert ends[0][0] < ends[1][0]


def test_lines_differ_by_more_than_color():
    markers = [re.search(r'class="mark s\d" d="(.+?)"', str(key(style)))[1] for style in range(STYLES)]
    assert len(set(markers)) == STYLES
    css = (Path(alcore_web.__file__).parent / "static" / "style.css").read_text()
    dashes = re.findall(r"\.line\.s\d \{ stroke: var\(--s\d\);(?: stroke-dasharray: ([^;]+);)? \}", css)
    assert len(set(dashes)) == len(dashes) == STYLES
