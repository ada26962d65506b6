"""What pages say of the examples on real data is what their curves say, and the pictures are drawn from these."""

from __future__ import annotations

from pathlib import Path

import pytest
from alcore_report import Comparison
from helpers.examples import EXAMPLES, script

FIGURE = script(EXAMPLES / "figure.py")
TABLES = sorted(path.relative_to(EXAMPLES) for path in EXAMPLES.glob("*/*.csv"))


def one_line(page: Path) -> str:
    return " ".join(page.read_text(encoding="utf-8").split())


def comparison_of(table: Path | str) -> Comparison:
    found: Comparison = FIGURE.comparison_of(EXAMPLES / table)
    return found


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_the_page_of_an_example_has_the_verdict_of_its_curves(table: Path) -> None:
    page = one_line(EXAMPLES / table.parent / "README.md")
    for verdict in [judged for axis in comparison_of(table).axes for judged in axis.verdicts.values()]:
        assert verdict.sentence in page
        assert verdict.outcome != "too few seeds"
    picture = EXAMPLES / table.with_suffix(".png")
    assert picture.name in page
    assert picture.stat().st_size < 150_000


def test_the_readme_has_the_figures_of_each_panel() -> None:
    page = one_line(EXAMPLES.parent / "README.md")
    for table in FIGURE.PANELS:
        (axis,) = comparison_of(table).axes
        (verdict,) = axis.verdicts.values()
        change = verdict.difference
        words = (
            f"| {axis.x[0]:.0f} to {axis.x[-1]:.0f} | {change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f}) "
        )
        assert f"{words}| {verdict.adjusted_p:.4f} | {verdict.outcome} |" in page, table


def test_the_picture_has_a_panel_for_each_example_with_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["figure.py", str(tmp_path / "examples.png")])
    FIGURE.main()
    assert (tmp_path / "examples.png").read_bytes().startswith(b"\x89PNG")
    accuracies = {table.parent.name for table in TABLES if "accuracy" in (EXAMPLES / table).read_text().split("\n")[0]}
    assert {Path(table).parent.name for table in FIGURE.PANELS} == accuracies
