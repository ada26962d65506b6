"""A small problem and the command."""

from __future__ import annotations

from helpers.command import command as command
from helpers.toys import build as build
from helpers.toys import toys as toys
