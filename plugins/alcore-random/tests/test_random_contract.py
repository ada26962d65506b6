"""Random sampling keeps the contract of query strategies."""

from alcore_random import RandomQuery
from alcore_testing import ALL_OUTPUTS, ALL_TASKS, QueryContract


class TestRandomQuery(QueryContract):
    name = "random"
    outputs, tasks, seeded = ALL_OUTPUTS, ALL_TASKS, True  # it doesn't look at outputs

    def make(self, **parameters):
        return RandomQuery(**parameters)
