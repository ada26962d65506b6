"""What a driver looks after while it waits for workers."""

from __future__ import annotations

import logging
import math
import time

from alcore_worker.open_requests import OpenRequests
from alcore_worker.run_tasks import RunTasks

_ATTEND = 5.0  # seconds between two signs that the driver lives
_LOOK_FOR_LOST = 5.0  # seconds between two looks for tasks that the exchange has lost
_TELL_AFTER = 10.0  # seconds without any worker until that is told


class Monitor:
    """Now and then: takes back what silent workers have, sends again what is lost, and says where nobody works.

    Parameters
    ----------
    tasks
        The tasks of the run.
    requests
        The requests that wait for an answer.
    silent_after, most_lost
        As of `WorkerLabelStrategy`.
    logger
        Told what is lost, and where nobody works.
    """

    def __init__(
        self, tasks: RunTasks, requests: OpenRequests, silent_after: float, most_lost: int, logger: logging.Logger
    ) -> None:
        self._tasks, self._requests, self._logger = tasks, requests, logger
        self._silent_after, self._most_lost = silent_after, most_lost
        self._began = self._looked_for_lost = self._took_back = time.monotonic()
        self._attended = self._looked_for_workers = -math.inf
        self._missing: set[str] = set()  # at the last look
        self._told = False

    def look(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now - self._attended > _ATTEND:
            self._attended = now
            self._tasks.attend()
        # after an outage of the exchange, workers get as long as ever to be heard of
        is_reachable = now - self._tasks.reachable_since > self._silent_after
        if is_reachable and now - self._took_back > min(1.0, self._silent_after / 4):
            self._took_back = now
            self._take_back()
        if now - self._looked_for_lost > _LOOK_FOR_LOST:
            self._looked_for_lost = now
            self._send_lost_again()
        if not self._told and now - self._began > _TELL_AFTER and now - self._looked_for_workers > 1.0:
            self._looked_for_workers = now  # again and again: a worker that was killed counts until it is found silent
            self._tell_where_nobody_works()

    def _take_back(self) -> None:
        given_up = self._tasks.take_back(self._silent_after, self._most_lost)
        if given_up:
            self._tasks.give_up(given_up)
            answered = set(self._tasks.answered())  # an answer that came at the last moment is taken, as others are
            self._requests.fail(
                [name for name in given_up if name in self._requests.by_name and name not in answered],
                f"{self._most_lost} workers fell silent while they worked on it",
            )

    def _send_lost_again(self) -> None:
        """Send again what was missing at the last look, and is now."""
        requests = self._requests
        missing = set(requests.by_name) - set(requests.unsent) - self._tasks.known()
        lost = {name: requests.by_name[name] for name in missing & self._missing}
        self._missing = missing
        if lost:
            self._logger.warning("%d requests are lost in %s; sending them again", len(lost), self._tasks.where)
            self._tasks.begin()
            requests.unsent |= lost

    def _tell_where_nobody_works(self) -> None:
        if not self._tasks.workers(self._silent_after):
            self._told = True
            self._logger.warning(
                "%d requests wait in %s, and no worker is there; start one with: alcore worker %s --label NAME",
                len(self._requests.by_name), self._tasks.where, self._tasks.where,
            )  # fmt: skip
