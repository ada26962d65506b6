"""What the tests of experiments share."""

from __future__ import annotations

from helpers.parts import chosen as chosen
from helpers.parts import read as read
from helpers.parts import registry as registry
from helpers.parts import suggest as suggest
