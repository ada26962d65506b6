"""Run the Python code of a page, as its readers would."""

from __future__ import annotations

import contextlib
import io
import re
import runpy  # noqa: TID251 - runs the examples of a README in the tests of its own project
from pathlib import Path
from typing import Any

from alcore.randomness import preserve_rng_state, seed_everything


def run_examples(page: Path, folder: Path) -> dict[str, Any]:
    """Run the ``python`` blocks of a Markdown page one after the other; they must print something.

    Parameters
    ----------
    page
        The page, or a test file of a plugin, whose README is meant then.
    folder
        Where they run, and may write.

    Returns
    -------
    dict
        The names that the code defined, and what it printed as ``"printed"``.
    """
    if page.suffix == ".py":
        page = page.parents[1] / "README.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no block of Python code"
    script, printed = folder / f"{page.stem}_examples.py", io.StringIO()
    script.write_text("\n".join(blocks), encoding="utf-8")
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), preserve_rng_state():
        seed_everything(0)
        names = runpy.run_path(str(script), run_name="examples")
    assert printed.getvalue(), f"the code of {page} prints nothing, so its reader sees nothing"
    return names | {"printed": printed.getvalue()}
