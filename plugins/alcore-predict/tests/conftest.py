"""A small problem, made-up plugins, and the command."""

from __future__ import annotations

from helpers.command import command as command
from helpers.parts import chosen as chosen
from helpers.parts import registry as registry
from helpers.toys import build as build
from helpers.toys import toys as toys
