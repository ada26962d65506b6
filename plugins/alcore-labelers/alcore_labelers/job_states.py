"""What a driver knows of a job, as a state, and the one table of how that may change.

A job is in one state at a time, which `Flight` keeps. `TRANSITIONS` says which change leads from which state to which.
How long a job has been silent, and for how long its program has ended, are times, which `Flight` measures.
"""

from __future__ import annotations

import enum


class JobState(enum.Enum):
    """What this driver knows of a job."""

    PREPARED = enum.auto()
    """Its folder is there, and this driver has not tried to submit it; a driver before it may have."""
    IN_DOUBT = enum.auto()
    """`submit` was called, and has not said whether the job is submitted."""
    NOT_SUBMITTED = enum.auto()
    """It was not submitted, and is kept from beginning: it is submitted again from another folder, by another name."""
    SUBMITTED = enum.auto()
    """The scheduler gave it a handle."""
    BEGUN = enum.auto()
    """It has begun to work, and has no handle: its files alone tell what becomes of it."""
    OVER = enum.auto()
    """Its request was answered, or is with nobody; the job is not looked at any more."""


class JobChange(enum.Enum):
    """What a driver learns of a job, or does with it."""

    SUBMIT = enum.auto()
    """`submit` is called."""
    REFUSE = enum.auto()
    """`submit` says that it surely did not submit, where the scheduler can't be asked for a name."""
    IDENTIFY = enum.auto()
    """`submit` or `find` gives its handle, or the job has written it to its folder."""
    BEGIN = enum.auto()
    """It has begun to work, although the scheduler gave no handle."""
    END = enum.auto()
    """It has come to its end, failed, is given up, or taken back; or its request was answered by somebody else."""


UNSETTLED = frozenset({JobState.PREPARED, JobState.IN_DOUBT, JobState.NOT_SUBMITTED})
"""The states of jobs that are to be submitted, or of which it is to be found out whether they were."""
_PREPARED, _DOUBT, _REFUSED, _SUBMITTED, _BEGUN, _OVER = JobState
# fmt: off
_TABLE = {
    #                   PREPARED    IN_DOUBT    NOT_SUBMITTED SUBMITTED   BEGUN       OVER
    JobChange.SUBMIT:   (_DOUBT,     _DOUBT,     _DOUBT,       None,       None,       None),
    JobChange.REFUSE:   (None,       _REFUSED,   None,         None,       None,       None),
    JobChange.IDENTIFY: (_SUBMITTED, _SUBMITTED, _SUBMITTED,   _SUBMITTED, _SUBMITTED, None),
    JobChange.BEGIN:    (_BEGUN,     _BEGUN,     _BEGUN,       _SUBMITTED, _BEGUN,     None),
    JobChange.END:      (_OVER,      _OVER,      _OVER,        _OVER,      _OVER,      None),
}
# fmt: on
TRANSITIONS: dict[JobChange, dict[JobState, JobState]] = {
    change: {before: after for before, after in zip(JobState, row, strict=True) if after is not None}
    for change, row in _TABLE.items()
}
"""The state that a change leads to, by the state before it. A pair that is not here can't happen."""
