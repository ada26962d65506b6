"""Lets tests import what lies beside them: the package `store_model`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("store_model")
sys.path.append(str(Path(__file__).parent))
