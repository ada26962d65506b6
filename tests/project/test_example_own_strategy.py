"""The example of a plugin is found by its entry point once it is on the path, and its strategy runs by name."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from helpers.processes import run_forked

EXAMPLES = Path(__file__).parents[2] / "examples"


def install(target: Path) -> None:
    """Do as ``pip install --target`` does, without a build: copy the package, and write its metadata."""
    project = tomllib.loads((EXAMPLES / "own_strategy" / "pyproject.toml").read_text())["project"]
    name = project["name"].replace("-", "_")
    shutil.copytree(EXAMPLES / "own_strategy" / name, target / name)
    metadata = target / f"{name}-{project['version']}.dist-info"
    metadata.mkdir()
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in project["dependencies"])
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n{needs}"
    )
    entries = "".join(f"{key} = {value}\n" for key, value in project["entry-points"]["alcore"].items())
    (metadata / "entry_points.txt").write_text(f"[alcore]\n{entries}")


def alcore(*arguments: str, path: Path, folder: Path) -> str:
    done = run_forked("-m", "alcore", *arguments, cwd=folder, env={"PYTHONPATH": str(path)}, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_strategy_is_listed_and_runs_by_its_name(tmp_path: Path) -> None:
    install(tmp_path / "site")
    listed = alcore("plugins", path=tmp_path / "site", folder=tmp_path)
    assert "alcore-nearzero" in listed
    assert "query: nearzero" in listed
    alcore(
        "run", "--query", "nearzero", "--set", "query.nearzero.max_samples=5", "--steps", "2", "--run-id", "own",
        path=tmp_path / "site", folder=tmp_path,
    )  # fmt: skip
    assert "nearzero" in (tmp_path / "active_learning_logs" / "own" / "experiment.toml").read_text()


def test_experiment_file_of_moons_runs(tmp_path: Path) -> None:
    alcore(
        "run", str(EXAMPLES / "moons.toml"), "--steps", "2", "--run-id", "file", path=tmp_path / "none", folder=tmp_path
    )
    assert (tmp_path / "active_learning_logs" / "file" / "f1_metrology.json").is_file()
