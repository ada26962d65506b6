"""The contract of query strategies."""

from __future__ import annotations

from alcore_testing.query_effects import QueryEffects
from alcore_testing.query_oracle import QueryOracle
from alcore_testing.query_outputs import QueryOutputs
from alcore_testing.query_pending import QueryPending
from alcore_testing.query_picks import QueryPicks
from alcore_testing.query_runs import QueryRuns


class QueryContract(QueryPicks, QueryPending, QueryOracle, QueryOutputs, QueryEffects, QueryRuns):
    """What every query strategy promises that chooses samples of a pool.

    Override ``make(**parameters)``, and say what is claimed: `name`, `outputs`, `tasks`, `kinds`, `streams`,
    `needs_labels`, `seeded`; and how picks are computed plainly: `oracle`. A strategy that needs a learner of its own
    kind overrides ``learner(case)`` too.

    Examples
    --------
    >>> class TestMyQuery(QueryContract):
    ...     name = "mine"
    ...     outputs = ("binary", "classes")
    ...     def make(self, **parameters):
    ...         return MyQuery(**parameters)
    """
