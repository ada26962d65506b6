"""The loop: train, measure, query, label, until something ends the run."""

from alcore.driver.driver import Driver

__all__ = ["Driver"]
