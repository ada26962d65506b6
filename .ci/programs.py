"""The system programs that tests need: which packages bring them, and what tests do where there are none.

`missing` prints the Debian packages of those that are not installed. `record FOLDER` fills a folder with programs of
the same names, which write down the test that starts them and then become the real ones. `hide FOLDER` fills it with
links to everything that can be started here but these programs. `tests FOLDER` prints the files of tests that started
one while `FOLDER` of `record` came first on the PATH, and of those that name one.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import sys
from pathlib import Path

PROGRAMS = {
    "strace": "strace",
    "g++": "g++",
    "chromium": "chromium",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "redis-server": "redis-server",
    "valkey-server": "valkey-server",
}
FAMILY = [
    "strace*", "*g++*", "c++*", "clang*", "chromium*", "google-chrome*", "slurm*", "redis-*", "valkey-*",
    "sacct*", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag", "sinfo", "sprio",
    "squeue", "sreport", "srun", "sshare", "sstat", "strigger", "sview",
]  # fmt: skip
"""Patterns of the names that these packages, and those that they need, bring."""
NAMED = re.compile(r"strace|g\+\+|chromium|slurm|sbatch|redis|valkey")
LOG = "started"


def executables() -> dict[str, Path]:
    """Return what can be started here, by name."""
    first: dict[str, Path] = {}
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in sorted(Path(folder).glob("*")) if folder else ():
            if path.is_file() and os.access(path, os.X_OK):
                first.setdefault(path.name, path)
    return first


def missing() -> list[str]:
    """Return the packages of the programs that are not here."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]


def hide(folder: Path) -> None:
    """Link everything into a folder but the programs and their families."""
    for name, path in executables().items():
        if not any(fnmatch.fnmatch(name, pattern) for pattern in FAMILY):
            (folder / name).symlink_to(path.absolute())


def record(folder: Path) -> None:
    """Fill a folder with programs that write down the test that starts them; processes inherit its name."""
    for name, path in executables().items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in FAMILY):
            script = f'#!/bin/sh\necho "$PYTEST_CURRENT_TEST" >>"{folder}/{LOG}" 2>/dev/null\nexec "{path}" "$@"\n'
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)


def tests(folder: Path, root: Path) -> list[str]:
    """Return the files of tests that started a program, or name one."""
    lines = (folder / LOG).read_text().splitlines() if (folder / LOG).exists() else []
    files = {line.partition("::")[0] for line in lines if "::" in line}
    for pattern in ("tests/**/test_*.py", "plugins/*/tests/**/test_*.py"):
        for path in root.glob(pattern):
            if NAMED.search(path.read_text(encoding="utf-8")):
                files.add(str(path.relative_to(root)))
    return sorted(files)


def main(verb: str, *arguments: str) -> None:
    """Do what the first word of the command says."""
    match verb, *map(Path, arguments):
        case "missing", *_:
            print(*missing())
        case "hide", folder:
            hide(folder)
        case "record", folder:
            record(folder)
        case "tests", folder:
            print(*tests(folder, Path(__file__).resolve().parent.parent))


if __name__ == "__main__":
    main(*sys.argv[1:])
