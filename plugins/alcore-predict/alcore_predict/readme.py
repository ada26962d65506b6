"""The ``README.txt`` of an export."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_WIDTH = 100


def readme_of(run: str, files: Sequence[tuple[str, str]]) -> str:
    """Return the text that says what the files of an export are, and how they are used.

    Parameters
    ----------
    run
        The id of the run.
    files
        The files that were written, with what they hold.
    """
    names = {name for name, _ in files}
    parts = [f"Export of run {run}, written by alcore export.", "", "Files", "-----"]
    for name, what in files:
        indent = " " * 23
        parts += textwrap.wrap(f"{name:<22} {what}.", _WIDTH, subsequent_indent=indent)
    parts += ["", "Labels", "------", _LABELS]
    if "labeled.npz" in names:
        parts += ["", "Labeled data", "------------", _DATA]
    if "predict.py" in names:
        new = "NEW.csv" if "inputs.py" in names else "NEW.npz"
        parts += ["", "Predict without alcore", "----------------------", _PREDICT.format(new=new)]
    if "model.py" in names:
        parts += ["", "The learner as a function", "-------------------------", _MODEL]
    parts += ["", "With alcore", "-----------", _ALCORE.format(run=run)]
    if "model.safetensors" in names:
        parts += [_WEIGHTS]
    return "\n".join(parts) + "\n"


_LABELS = """\
labels.csv has a line for each sample that was labeled at the start (state "initial") and for each
request. "label" is the class by its name, or the value; "value" is the label as it is stored. "row"
is the row of the data's file, from 0, where a header and blank lines don't count, so that
pandas.read_csv(FILE).iloc[row] is the sample; "line" is its line in a text file, from 1."""

_DATA = """\
    import numpy as np
    data = np.load("labeled.npz")
    data["inputs"], data["targets"]    # in training order; a class is its place in info.json"""

_PREDICT = """\
NumPy, PyTorch and safetensors are needed, and nothing else:

    python predict.py {new} PREDICTIONS.csv"""

_MODEL = """\
model.py is the learner's computation, written out operator by operator:

    from model import load
    learner = load()
    outputs = learner(inputs)          # a batch of any size, made as for the run

learner.json says what the outputs are: "logits", "probabilities" or "values". Where it says
"mean-variance", the first half of the columns are means, and the second half variances of labels
around them. An ensemble's outputs are (members, batch, ...): take the mean of the members' values,
or of their probabilities.

model.py, inputs.py and predict.py are Python: read those that somebody else sent you before you use
them. The weights are in safetensors files, which hold no code."""

_ALCORE = """\
    alcore predict {run} NEW.csv                 # from the run directory; nothing here is read"""

_WEIGHTS = """    alcore run ... --weights model.safetensors   # a new run that begins with these weights

learner.json says how the learner is built; it takes the weights so:

    from safetensors.torch import load_file
    learner.load_state_dict(load_file("model.safetensors"))"""
