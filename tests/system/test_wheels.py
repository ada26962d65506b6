"""The promise to plugin authors, kept from wheel to uninstallation in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]
UNSEEN = ("alcore", "__editable__", "_distutils_hack", "distutils-precedence", "pip", "setuptools")

PYPROJECT = """
[build-system]
requires = ["flit_core>=3.11,<4"]
build-backend = "flit_core.buildapi"

[project]
name = "edge-of-town"
version = "2.5.0"
description = "Ask for the samples that lie farthest out."
dependencies = ["alcore>=0.1,<0.2"]

[project.entry-points.alcore]
edge = "edge_of_town"
"""

STRATEGY = '''
import alcore
from alcore import BaseQuery


class Outermost(BaseQuery):
    """Ask for the samples farthest from the origin."""

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def sample(self, query_queue, *args, **kwargs):
        ids = next(self.driver.candidates())
        radius = self.driver.choice_pool.inputs(ids).norm(dim=1)
        query_queue.put_many(ids[radius.argsort(descending=True)[: self.count]].tolist())


@alcore.hookimpl
def alcore_query_strategies():
    return {"outermost": Outermost}
'''


def call(*words, cwd, env, code=0):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def pip(environment, *words, cwd):
    env = environment({"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"})
    return call(sys.executable, "-m", "pip", *words, cwd=cwd, env=env)


def without_alcore(folder: Path) -> Path:
    """Return a folder that shows what is installed here, except alcore, its plugins, and what .pth files add.

    The new environment borrows torch and the rest from it, so that nothing is downloaded.
    """
    folder.mkdir()
    for place in [entry for entry in sys.path if entry and any(Path(entry).glob("*.dist-info"))]:
        for path in Path(place).iterdir():
            if not path.name.startswith(UNSEEN) and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, environment):
    """Wheels of core and of every plugin, built from a copy so that the checkout stays clean."""
    base = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "active_learning_logs")
    sources = []
    for project in PROJECTS:
        target = base / (project.name if project != ROOT else "core")
        if project == ROOT:
            target.mkdir()
            shutil.copytree(ROOT / "alcore", target / "alcore", ignore=ignored)
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, target / name)
        else:
            shutil.copytree(project, target, ignore=ignored)
        sources.append(target)
    pip(environment, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", base / "wheels", *sources, cwd=base)
    return sorted((base / "wheels").glob("*.whl"))


@pytest.fixture(scope="module")
def home(tmp_path_factory, wheels, environment):
    """A new environment with the wheels installed; its folder."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home / "venv", with_pip=False, symlinks=os.name != "nt")
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(f"{without_alcore(home / 'borrowed')}\n")
    interpreter = home / "venv" / "bin" / "python"
    pip(environment, "--python", interpreter, "install", "-q", "--no-deps", *wheels, cwd=home)
    return home


def test_there_is_a_wheel_of_each_project_and_nothing_else_in_it(wheels):
    import zipfile

    assert len(wheels) == len(PROJECTS) >= 8
    for wheel in wheels:
        package = wheel.name.split("-")[0]
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.split("/")[0] for name in archive.namelist()}
        assert {top for top in tops if not top.endswith(".dist-info")} == {package}


def test_the_plugin_promise(home, environment, tmp_path):
    env = environment()
    interpreter, alcore = home / "venv" / "bin" / "python", home / "venv" / "bin" / "alcore"
    places = (
        "import alcore, alcore_uq, alcore_moons, torch; print(*(m.__file__ for m in (alcore, alcore_uq, alcore_moons)))"
    )
    for place in call(interpreter, "-c", places, cwd=tmp_path, env=env).stdout.split():
        assert Path(place).is_relative_to(home / "venv"), "this is not what the wheels installed"
        assert not Path(place).resolve().is_relative_to(ROOT)
    assert "outermost" not in call(alcore, "plugins", cwd=tmp_path, env=env).stdout

    project = tmp_path / "edge-of-town"
    project.mkdir()
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "edge_of_town.py").write_text(STRATEGY)
    install = ["install", "-q", "--no-deps", "--no-build-isolation", project]  # no network, so no isolated build
    pip(environment, "--python", interpreter, *install, cwd=tmp_path)

    listed = call(alcore, "plugins", cwd=tmp_path, env=env).stdout
    assert re.search(r"^edge-of-town +2\.5\.0 +ok +query: outermost$", listed, re.MULTILINE)
    described = call(alcore, "describe", "query", "outermost", cwd=tmp_path, env=env).stdout
    assert "Ask for the samples farthest from the origin." in described

    words = ["run", "--query", "outermost", "--set", "query.outermost.count=3", "--steps", "2", "--run-id", "out"]
    call(alcore, *words, cwd=tmp_path, env=env)
    requests = call(alcore, "show", "out", "--step", "0", cwd=tmp_path, env=env).stdout
    assert requests.count(" outermost ") == 3
    log = tmp_path / "active_learning_logs" / "out"
    assert (log / "f1_metrology.json").is_file()

    pip(environment, "--python", interpreter, "uninstall", "-q", "-y", "edge-of-town", cwd=tmp_path)
    gone = call(alcore, "run", "--query", "outermost", "--steps", "1", cwd=tmp_path, env=env, code=2).stderr
    assert "no plugin offers the query 'outermost'" in gone
    assert "random, " in gone
    near = call(alcore, "describe", "query", "randomm", cwd=tmp_path, env=env, code=2).stderr
    assert "did you mean 'random'?" in near
    assert "outermost" not in call(alcore, "plugins", cwd=tmp_path, env=env).stdout
    call(alcore, "show", "out", cwd=tmp_path, env=env)  # what a run gathered needs no plugin to be read
