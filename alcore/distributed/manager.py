"""Which process this is, on which device it works, and how processes find each other."""

from __future__ import annotations

import atexit
import datetime
import gc
import os
import socket
import sys
from typing import Any

import torch

from alcore.distributed.group import Group, write_error_file
from alcore.distributed.ranks import Ranks, mean_over_ranks
from alcore.errors import UsageError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_joined: list[Group] = []  # the one group of this process, once it has joined it
_training: list[Any] = []  # the process group for gradients, likewise
_initialized: list[bool] = []  # not empty after `DistributedManager.initialize`
_owned: list[bool] = []  # not empty where torch's default process group was made here


class DistributedManager:
    """Which process this is, how many there are, and on which device it works.

    Parameters
    ----------
    device
        Where this process works; the GPU of its local rank, else the CPU, where it is None.
    find_unused_parameters
        Allow batches that leave some parameters of the learner without a gradient, at some cost; see
        `torch.nn.parallel.DistributedDataParallel`.
    sync_batch_norm
        Compute the statistics of batch normalization over the batches of all ranks in training; on CUDA only.
    timeout
        Time-out of the process groups in seconds: how long a rank waits in an exchange for the others. It must be
        longer than any rank works without an exchange, except for labeling, which may take as long as it likes.
    join_timeout
        Seconds that ranks wait for all of them to start.

    Attributes
    ----------
    rank, local_rank, world_size : int
        Read from the environment that ``torchrun`` sets; 0, 0 and 1 without it.
    device : torch.device
        Where this process works.

    Notes
    -----
    Processes find each other by ``MASTER_ADDR`` and ``MASTER_PORT``, with gloo on CPUs and NCCL on GPUs.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        *,
        find_unused_parameters: bool = False,
        sync_batch_norm: bool = False,
        timeout: float = 1800.0,
        join_timeout: float = 600.0,
    ) -> None:
        self.rank, self.local_rank, self.world_size = (
            _number(name, default) for name, default in zip(_VARIABLES, (0, 0, 1), strict=True)
        )
        if not 0 <= self.rank < self.world_size:
            raise UsageError(
                f"DistributedManager: RANK is {self.rank} and WORLD_SIZE is {self.world_size}; ranks are counted from "
                "0. torchrun sets both."
            )
        if device is None:
            device = f"cuda:{self.local_rank}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.find_unused_parameters, self.timeout = find_unused_parameters, timeout
        self.sync_batch_norm, self.join_timeout = sync_batch_norm, join_timeout
        if sync_batch_norm and self.device.type != "cuda":
            raise UsageError(
                f"DistributedManager: sync_batch_norm needs CUDA, and this process works on {self.device}; leave it "
                "out."
            )

    @classmethod
    def initialize(cls) -> None:
        """Join the other processes now; otherwise they are joined when a Driver is made."""
        cls().join()
        _initialized.append(True)

    @classmethod
    def is_initialized(cls) -> bool:
        """Return whether `initialize` was called in this process, or a Driver has joined the others."""
        return bool(_initialized or _joined)

    @property
    def distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1

    @property
    def training_group(self) -> Any:
        """The process group that gradients are averaged in, or None with one process."""
        return _training[0] if _training else None

    def join(self) -> Ranks:
        """Return the group of processes; the first call waits until all of them have started.

        Raises
        ------
        UsageError
            When they can't find each other.
        """
        if not self.distributed:
            return Ranks()
        if not _joined:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            _joined.append(_join(self))
            atexit.register(leave)
            _report_uncaught_errors()
        return _joined[0]


def leave() -> None:
    """Leave the group of processes, together with the others where no rank has failed; called when python exits.

    A process that ends without leaving is aborted by torch now and then.
    """
    if not _joined:
        return
    group = _joined.pop()
    _training.clear()
    gc.collect()  # objects that refer to the process groups, such as DDP wrappers, must go first
    if torch.distributed.is_initialized():  # the user's own code may have ended it
        group.leave(torch.distributed.destroy_process_group if _owned else lambda: None)


def report_failure(error: BaseException) -> None:
    """Report to the other ranks, and to torchrun, why this process ends; with one process, to torchrun alone."""
    if _joined:
        _joined[0].fail(_joined[0].root_cause(error))
    elif not isinstance(error, KeyboardInterrupt):
        write_error_file(error)


def manager_for(device: str) -> DistributedManager | None:
    """Return a manager where ``torchrun`` or the like has started several processes, else None.

    Parameters
    ----------
    device
        Where to compute; ``"cuda"`` is the GPU of the local rank.
    """
    here = DistributedManager("cpu")
    if not here.distributed:
        return None
    return DistributedManager(f"cuda:{here.local_rank}" if device == "cuda" else device)


def average(value: float) -> float:
    """Return the mean of a number over all ranks; with one process, the number itself.

    For training loops: all ranks must take the same decisions, so a decision that depends on a loss must depend on its
    mean over ranks.
    """
    if not _joined:
        return value
    return mean_over_ranks(_joined[0].gather(value))


def _report_uncaught_errors() -> None:
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        report_failure(error)
        before(kind, error, trace)

    sys.excepthook = hook


def _join(manager: DistributedManager) -> Group:
    distributed: Any = torch.distributed
    if not distributed.is_available():
        raise UsageError(
            f"WORLD_SIZE is {manager.world_size}, and this build of torch has no torch.distributed. Install one that "
            "has, or start a single process."
        )
    if distributed.is_initialized():  # by the user's own code
        store = distributed.distributed_c10d._get_default_store()
        return _groups(manager, distributed.PrefixStore("alcore", store))
    limit = datetime.timedelta(seconds=manager.join_timeout)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {manager.world_size}, and {' and '.join(missing)} not set: processes can't find each "
            "other. Start them with torchrun."
        )
    if os.environ["MASTER_ADDR"] in ("127.0.0.1", "localhost") and "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if manager.device.type == "cuda" else "gloo"
    try:
        store, _, _ = next(distributed.rendezvous("env://", timeout=limit))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # ignore keys of earlier attempts
        store = distributed.PrefixStore(f"alcore/{attempt}", store)
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("torch", store),
            rank=manager.rank,
            world_size=manager.world_size,
            timeout=limit,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"rank {manager.rank} of {manager.world_size} can't join the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']}: {' '.join(str(error).split())[:300]}. Start all of them, with torchrun."
        ) from error
    _owned.append(True)
    return _groups(manager, store)


def _groups(manager: DistributedManager, store: Any) -> Group:
    """Make a process group for exchanges, and one for gradients, which may be under way at the same time."""
    distributed: Any = torch.distributed
    limit = datetime.timedelta(seconds=manager.timeout)
    exchanges = distributed.new_group(backend="gloo", timeout=limit)
    backend = "nccl" if manager.device.type == "cuda" else "gloo"
    _training.append(distributed.new_group(backend=backend, timeout=limit))
    return Group(store, exchanges, manager.rank, manager.world_size, timeout=manager.timeout)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"the environment variable {name} is {text!r}; it must be a whole number. torchrun sets it.")
    return int(text)
