"""What a part of alcore promises, as test classes to inherit from; for test suites, and it needs pytest.

A plugin's own tests make a subclass for each part and say what is claimed:

>>> from alcore_testing import QueryContract
>>> class TestMyQuery(QueryContract):
...     name = "mine"
...     def make(self, **parameters):
...         return MyQuery(**parameters)

Nothing in core imports this package. The page ``docs/testing.md`` is its manual.
"""

from __future__ import annotations

import pytest

_CHECKING = "command contract drivers essence label label_ways learner loop metrology observer plain pool queues query"
_CHECKING += " stop watch"
pytest.register_assert_rewrite(*(f"alcore_testing.{name}" for name in _CHECKING.split()))

from alcore_testing.command import Finished, run_command  # noqa: E402
from alcore_testing.contract import Contract, requires  # noqa: E402
from alcore_testing.drivers import ToyDriver, ask, build_driver, prepare  # noqa: E402
from alcore_testing.essence import differences, essence_of  # noqa: E402
from alcore_testing.examples import run_examples  # noqa: E402
from alcore_testing.label import LabelContract  # noqa: E402
from alcore_testing.label_ways import (  # noqa: E402
    ElsewhereLabelContract,
    ImmediateLabelContract,
    InProcessLabelContract,
)
from alcore_testing.learner import LearnerContract  # noqa: E402
from alcore_testing.loop import TrainingLoopContract  # noqa: E402
from alcore_testing.metrology import MetrologyContract  # noqa: E402
from alcore_testing.observer import ObserverContract  # noqa: E402
from alcore_testing.pool import PoolContract  # noqa: E402
from alcore_testing.query import QueryContract, assert_best_first  # noqa: E402
from alcore_testing.queues import QueueContract  # noqa: E402
from alcore_testing.rows import rows_at_once  # noqa: E402
from alcore_testing.stop import StopCriterionContract  # noqa: E402
from alcore_testing.toys import (  # noqa: E402
    ALL_KINDS,
    ALL_OUTPUTS,
    ALL_TASKS,
    CASES,
    Case,
    ToyLabel,
    ToyLearner,
    ToyMetrology,
    ToyQuery,
    toy_learner,
    toy_loop,
    toy_pool,
)
from alcore_testing.watch import peak_memory, untouched  # noqa: E402

__all__ = [
    "ALL_KINDS",
    "ALL_OUTPUTS",
    "ALL_TASKS",
    "CASES",
    "Case",
    "Contract",
    "ElsewhereLabelContract",
    "Finished",
    "ImmediateLabelContract",
    "InProcessLabelContract",
    "LabelContract",
    "LearnerContract",
    "MetrologyContract",
    "ObserverContract",
    "PoolContract",
    "QueryContract",
    "QueueContract",
    "StopCriterionContract",
    "ToyDriver",
    "ToyLabel",
    "ToyLearner",
    "ToyMetrology",
    "ToyQuery",
    "TrainingLoopContract",
    "ask",
    "assert_best_first",
    "build_driver",
    "differences",
    "essence_of",
    "peak_memory",
    "prepare",
    "requires",
    "rows_at_once",
    "run_command",
    "run_examples",
    "toy_learner",
    "toy_loop",
    "toy_pool",
    "untouched",
]
