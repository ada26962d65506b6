"""Templates become HTML; whatever comes from a run is text in it, and never markup."""

from __future__ import annotations

import functools
from typing import Any

import jinja2


def render(template: str, values: dict[str, Any]) -> str:
    """Return the page of a template.

    Parameters
    ----------
    template
        Its file name.
    values
        What it shows; every text is escaped, but the SVG of figures, which matplotlib has escaped.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alcore_report.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["number"] = _is_number
    return environment


def _is_number(text: str) -> bool:
    """Return whether a cell is aligned to the right: a number, perhaps with a sign or a unit, or none."""
    return not text or text[0] in "-0123456789><"
