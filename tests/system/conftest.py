"""What the tests of the installed command share: the command itself, and tiny foreign distributions."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import SCRIPT, clean_environment, run_forked


@dataclasses.dataclass(frozen=True)
class Result:
    """What one call of the command gave."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON; it must be nothing else."""
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """The one paragraph of an error, its spaces made single."""
        text = self.err.strip()
        assert text.startswith("alcore: error: "), self
        assert "\n\n" not in text, f"more than one paragraph: {text}"
        assert text.count("alcore: ") == 1, f"more than one message: {text}"
        assert "Traceback" not in text
        return " ".join(text.split())


@pytest.fixture(scope="session")
def script() -> Path:
    """The command beside the running interpreter."""
    if not SCRIPT.is_file():
        pytest.fail(f"there is no {SCRIPT}; install the checkout: pip install --no-deps -e . -e plugins/...")
    return SCRIPT


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    return clean_environment


@pytest.fixture(scope="session")
def run_alcore(script: Path) -> Callable[..., Result]:
    """Call the command: ``run_alcore(*args, cwd=, env=, code=)``; `code` is the exit code that is expected."""

    def call(*args: str | Path, cwd: Path, env: Mapping[str, str] | None = None, code: int = 0) -> Result:
        done = run_forked(script, *args, cwd=cwd, env=env)
        assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def here(run_alcore: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """`run_alcore` in a folder of the test's own."""

    def call(*args: str | Path, **options: Any) -> Result:
        return run_alcore(*args, cwd=tmp_path, **options)

    return call


@pytest.fixture
def distribution(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make an installed package of a folder on PYTHONPATH; returns the environment in which it is installed.

    Distributions made by one test lie in one folder, as in site-packages.
    """
    site = tmp_path / "foreign-site"
    site.mkdir()

    def make(
        name: str,
        modules: Mapping[str, str] | str,
        *,
        version: str = "1.0",
        requires: str = "alcore>=0.1,<0.2",
        entry_points: Mapping[str, str] | str | None = None,
        metadata: str | None = None,
    ) -> dict[str, str]:
        module = name.replace("-", "_")
        sources = {module: modules} if isinstance(modules, str) else modules
        for stem, source in sources.items():
            (site / f"{stem}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
        if metadata:
            (info / "METADATA").write_text(metadata, encoding="utf-8")
        if entry_points is None:
            entry_points = {module: module}
        if not isinstance(entry_points, str):
            entry_points = "\n".join(f"{key} = {value}" for key, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[alcore]\n{entry_points}\n", encoding="utf-8")
        return {"PYTHONPATH": str(site)}

    return make


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    """Read a run's database: ``rows(folder, query)``."""

    def read(folder: Path, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'run.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    return read


@pytest.fixture(scope="session")
def requests_of(rows: Callable[..., list[tuple[Any, ...]]]) -> Callable[[Path], list[tuple[Any, ...]]]:
    """Return what a run asked for, without the ids that are made from the run's own id."""

    def read(folder: Path) -> list[tuple[Any, ...]]:
        return rows(
            folder, "SELECT step, ordinal, sample, strategy, score, rank, model FROM requests ORDER BY step, ordinal"
        )

    return read
