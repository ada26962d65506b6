"""What the tests of the command share."""

from __future__ import annotations

from helpers.command import command as command
