"""What `docs/solver.md` shows, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from alcore_testing import run_command
from helpers.processes import run_forked

pytestmark = pytest.mark.system
PAGE = (Path(__file__).parents[2] / "docs" / "solver.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "solver.sh").write_text(block("sh"))
    (tmp_path / "solver.sh").chmod(0o755)
    (tmp_path / "reactor.toml").write_text(block("toml"))
    (tmp_path / "new.csv").write_text("T,p,phi\n1000,1e6,1.0\n1450,2e5,0.7\n")
    return tmp_path


def test_commands_of_the_page_lead_to_a_surrogate(folder: Path) -> None:
    shorter = ["--set", "data.space.candidates_per_step=20000"]
    checked = run_command(
        folder, "check", "reactor.toml", "--allow-code", "--run-id", "first", "--steps", "3", *shorter
    )
    assert checked.code == 0, checked.err
    assert "No faults were found.\nGo on with: alcore resume first --allow-code" in checked.out.replace(
        "active_learning_logs/", ""
    )
    resumed = run_command(folder, "resume", "first", "--allow-code")
    assert resumed.code == 0, resumed.err
    rows = [line.split() for line in resumed.out.splitlines() if re.match(r" +\d+ +\d+ ", line)]
    assert float(rows[3 - 1][2]) < 0.15  # the root mean squared error after three steps
    predicted = run_command(folder, "predict", "first", "new.csv")
    assert predicted.out.split()[:5] == ["row", "prediction", "std", "low", "high"]
    row = predicted.out.splitlines()[1].split()
    assert float(row[3]) < float(row[1]) < float(row[4])


def test_python_of_the_page_runs(folder: Path) -> None:
    code = block("python").replace("validation=20", "validation=5, candidates_per_step=20000")
    (folder / "page.py").write_text(code.replace("max_active_learning_steps=3", "max_active_learning_steps=2"))
    done = run_forked("page.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "active_learning_logs").iterdir())) == 1
