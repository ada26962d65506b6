"""The command."""

from __future__ import annotations

from helpers.command import command as command
