"""For how long something has not changed."""

from __future__ import annotations

import time


class ChangeTimer:
    """Tells for how long something has not changed, by the clock of this process alone."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def unchanged(self, name: str, value: object) -> float:
        """Return the seconds since the value of this name was seen to change, or was seen first."""
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None or before[0] != value:
            self._seen[name] = (value, now)
            return 0.0
        return now - before[1]
