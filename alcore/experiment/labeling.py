"""What a run asks for, and answers that are told to it, by someone who is not the Driver."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any

from alcore.driver.answers import AnswerCheck
from alcore.driver.asking import OpenRequest, open_requests
from alcore.driver.pool_set import PoolSet
from alcore.driver.telling import Told, tell
from alcore.errors import UsageError, message_of
from alcore.experiment.resolve import load_data
from alcore.experiment.trained import TrainedRun
from alcore.plugins.registry import installed
from alcore.protocols import DataInfo
from alcore.store.reading import Run


@dataclasses.dataclass
class Labeling:
    """The requests of a run and their answers, for people who label; the run may be under way.

    Parameters
    ----------
    run
        The run.
    allow_code
        Whether to import ``package.module:name`` that its experiment names.

    Attributes
    ----------
    pools : PoolSet
        The data as it was when the run began; without any pool where it can't be made again, as of a run that was
        built in Python.
    fault : str
        Why it can't; empty otherwise. Then inputs are not shown, and labels are compared with `info` alone.
    info : DataInfo or None
        What is known about the data.
    """

    run: Run
    allow_code: bool = False

    def __post_init__(self) -> None:
        self.pools, self.fault = PoolSet(None, None, None), ""
        trained = TrainedRun(self.run, self.allow_code)
        try:
            data = load_data(trained.experiment(), installed(), allow_code=self.allow_code)
            self.pools = PoolSet(data.train, data.val, data.unlabeled)
        except UsageError as error:
            self.fault = message_of(error).rstrip(".")
        self.info: DataInfo | None = self.pools.info
        if self.info is None:
            with contextlib.suppress(UsageError):
                self.info = trained.info()

    def ask(self) -> list[OpenRequest]:
        """Return the requests that have no answer, oldest first."""
        return open_requests(self.run, self.pools.choice)

    def tell(self, answers: Iterable[Any]) -> Told:
        """Give answers to open requests, as `alcore.Driver.tell` does."""
        return tell(self.run, answers, AnswerCheck(self.pools, self.info))
