"""What the tests of core share: a small problem to build drivers on."""

from __future__ import annotations

from helpers.toys import build as build
from helpers.toys import toys as toys
