"""Where a run is."""

from __future__ import annotations

from alcore.protocols import EndReason, Phase


class RunPosition:
    """Where a run is: the step and the phase under way, and why it ended.

    Parameters
    ----------
    run_id
        Names the run.

    Attributes
    ----------
    run_id : str
        Names the run.
    step : int
        The step under way, or the number of finished ones between steps.
    phase : Phase or None
        The phase under way.
    end_reason : EndReason or None
        Why the run ended; None while it goes on.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.step = 0
        self.phase: Phase | None = None
        self.end_reason: EndReason | None = None
