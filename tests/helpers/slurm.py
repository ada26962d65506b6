"""A real Slurm of one node, in namespaces of its own, which takes about two seconds to start.

It needs no accounting, no munge and no network. Its commands are called from outside through ``nsenter``.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_PROGRAMS = ("slurmctld", "slurmd", "sinfo", "sbatch", "squeue", "scontrol", "scancel", "unshare", "nsenter")
_NODE = "node0"
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
AuthType=auth/slurm
CredType=cred/slurm
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
KillWait=10
MessageTimeout=3
MinJobAge={forget}
SlurmdTimeout=60
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName={node} NodeAddr=127.0.0.1 CPUs=64 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=first Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
PartitionName=short Nodes=ALL MaxTime=10 State=UP PriorityTier=1
"""


def why_not() -> str:
    """Return why no cluster can be started here; empty where one can."""
    if missing := [name for name in _PROGRAMS if _which(name) is None]:
        return f"{missing[0]} is not on the PATH (on Debian: apt install slurmctld slurmd slurm-client)"
    if os.geteuid():
        return "namespaces of a cluster need root"
    return ""


class SlurmCluster:
    """A running cluster.

    Parameters
    ----------
    folder
        Where it keeps its files.
    pid
        The first process of its namespaces.

    Attributes
    ----------
    bin : pathlib.Path
        A folder with Slurm's commands, which reach this cluster.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self._pid, self.bin = folder, pid, folder / "bin"
        for name in _PROGRAMS:
            _which(name)  # before its own folder comes first on the PATH
        self.bin.mkdir()
        outside = Path("/proc/self/ns/pid").readlink()
        for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo"):
            path = self.bin / name
            enter = f"[ $(readlink /proc/self/ns/pid) = '{outside}' ] && exec {' '.join(self._enter())}"  # jobs are in
            path.write_text(f'#!/bin/sh\n{enter} {_which(name)} "$@"\nexec {_which(name)} "$@"\n')
            path.chmod(0o755)

    def env(self) -> dict[str, str]:
        """Return the variables with which Slurm's commands reach this cluster."""
        return {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *arguments: str) -> str:
        """Call a command inside, and return what it printed."""
        done = subprocess.run(
            [*self._enter(), *arguments],
            env={**os.environ, **self.env()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout + done.stderr

    def is_ready(self) -> bool:
        """Return whether jobs may be submitted."""
        return self.call(str(_which("sinfo")), "--noheader", "--format=%T").strip().startswith(("idle", "mixed"))

    def kill_controller(self) -> None:
        """End slurmctld without a chance to save anything."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "slurmctld.pid").read_text())
            self.call("kill", "-9", str(pid))

    def stop_controller(self) -> None:
        """End slurmctld, which saves its state, and wait until it is gone."""
        with contextlib.suppress(OSError, ValueError):
            pid = (self.folder / "slurmctld.pid").read_text().strip()
            self.call("kill", "-15", pid)
            for _ in range(200):
                if not self.call("sh", "-c", f"kill -0 {int(pid)} 2>/dev/null && echo there").strip():
                    return
                time.sleep(0.05)

    def start_controller(self) -> None:
        """Start slurmctld, which reads the state that it saved."""
        self.call(str(_which("slurmctld")))

    def resume_node(self) -> None:
        """Let the node take jobs again: Slurm drains one on which it could not end a job."""
        if not self.is_ready():
            self.call(str(_which("scontrol")), "update", f"nodename={_NODE}", "state=resume")

    def names(self) -> list[str]:
        """Return the names of all jobs that it knows, those that are over too."""
        return self.call(str(_which("squeue")), "--states=all", "--noheader", "--format=%j").split()

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--net", "--mount", "--pid", "--uts", "--"]


@contextlib.contextmanager
def slurm_cluster(folder: Path, *, forget: int = 300) -> Iterator[SlurmCluster]:
    """Start a cluster, and end it with all its jobs.

    Parameters
    ----------
    folder
        For its files; made.
    forget
        Seconds after which it forgets jobs that are over.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=folder, node=_NODE, forget=forget))
    key = folder / "slurm.key"
    key.write_bytes(base64.b64encode(os.urandom(512)))
    key.chmod(0o600)
    (folder / "hosts").write_text(f"127.0.0.1 localhost {_NODE}\n")
    inside = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "init.log").open("wb") as log:
        outer = subprocess.Popen(
            [*inside, sys.executable, "-I", str(Path(__file__)), str(folder)],
            stdin=subprocess.PIPE,  # which closes with this process: then the cluster ends
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _until(lambda: (folder / "up").exists(), folder)
        (child,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        cluster = SlurmCluster(folder, int(child))
        _until(cluster.is_ready, folder)
        yield cluster
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(outer.pid, signal.SIGKILL)
        outer.communicate()


def _until(holds: Callable[[], bool], folder: Path, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
            raise RuntimeError(f"the cluster does not start:\n{logs}")
        time.sleep(0.05)


@functools.cache
def _which(name: str) -> str | None:
    return shutil.which(name)


def _loopback_up() -> None:
    """Bring the loopback device up, with a second address: names are not resolved where there is but the usual one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, address in (("lo", "127.0.0.1"), ("lo:1", "10.111.0.1")):
            packed = struct.pack("16sH2s4s8s", name.encode(), socket.AF_INET, b"", socket.inet_aton(address), b"")
            if name != "lo":
                fcntl.ioctl(control, 0x8916, packed)  # SIOCSIFADDR
            fcntl.ioctl(control, 0x8914, struct.pack("16sH14s", name.encode(), 0x41, b""))  # SIOCSIFFLAGS: up, running


def _init(folder: Path, env: Mapping[str, str]) -> None:
    """Be the first process of the namespaces: start the daemons, and reap what they leave."""
    _loopback_up()
    socket.sethostname(_NODE)
    subprocess.run(["mount", "--bind", str(folder / "hosts"), "/etc/hosts"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # a socket of Slurm's authentication is there
    for name, arguments in (("slurmctld", ()), ("slurmd", ("-N", _NODE))):
        subprocess.run([str(_which(name)), *arguments], env=dict(env), stdin=subprocess.DEVNULL, check=True)
    (folder / "up").touch()
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    _init(Path(sys.argv[1]), {**os.environ, "SLURM_CONF": str(Path(sys.argv[1]) / "slurm.conf")})
