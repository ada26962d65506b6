"""A learner as a Python file: the graph of PyTorch's operators that it computes, for use without its class."""

from __future__ import annotations

import contextlib
import io
import keyword
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.export.graph_signature import TensorArgument

from alcore.outputs import evaluating

_TEMPLATE = '''"""{about}

Written by alcore export. It needs torch and safetensors, and the files beside it. `load()` returns a function that maps
a batch of inputs, {dtype} of shape {shape}, to the learner's outputs in eval mode; the batch may have any size.
"""

from math import inf, nan
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import device

WEIGHTS = {weights}
"""The arguments of `graph` before the inputs: each by its file and its name in it."""


def load(folder=Path(__file__).parent):
    """Return the learner as a function of a batch of inputs."""
    files = {{file: load_file(Path(folder) / file) for file, _ in WEIGHTS}}
    weights = [files[file][name] for file, name in WEIGHTS]

    def learner(inputs):
        with torch.no_grad():
            return graph(*weights, inputs)

    return learner


def graph({arguments}):
{body}
'''
_KNOWN = {"inf", "nan", "NoneType", "torch", "device", "fx_pytree", "pytree"}
"""What the code of a graph may use by name."""


class Program(NamedTuple):
    """A learner as source, and the tensors that it needs beside its ``state_dict``."""

    source: str
    constants: dict[str, torch.Tensor]


class NoProgramError(Exception):
    """A learner can't be written as a graph; the text says why."""


def program_of(learner: Any, inputs: torch.Tensor, about: str) -> Program:
    """Return a learner as a graph of PyTorch's operators, which `torch.export.export` finds.

    Parameters
    ----------
    learner
        A module whose forward pass takes one tensor and returns one.
    inputs
        A batch of at least two inputs: shape (B, ...).
    about
        First line of the file's docstring.

    Raises
    ------
    NoProgramError
        If it can't be done, or the graph gives other outputs than the learner.

    Notes
    -----
    A file of source and a safetensors file are written in place of what `torch.export.save` writes, since
    `torch.export.load` falls back to ``torch.load(weights_only=False)``, which runs code that a file brings along.
    """
    if not isinstance(learner, torch.nn.Module):
        raise NoProgramError(f"the learner is a {type(learner).__name__}, not a torch.nn.Module")
    with evaluating(learner), _quiet():
        try:
            expected = learner(inputs)
            exported = torch.export.export(learner, (inputs,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            raise NoProgramError(f"torch.export can't export the learner: {type(error).__name__}: {first}") from error
    if not isinstance(expected, torch.Tensor):
        raise NoProgramError(f"the learner returns a {type(expected).__name__}, not a tensor")
    graph = exported.graph_module
    code = graph.graph.python_code("self")
    unknown = set(code.globals) - _KNOWN
    unknown |= set(re.findall(r"torch\.ops\.(\w+)", graph.code)) - {"aten", "prims"}  # operators of other packages
    if unknown or {node.op for node in graph.graph.nodes} - {"placeholder", "call_function", "output"}:
        raise NoProgramError("its graph has parts that are not operators of PyTorch, such as control flow")
    *weights, last = exported.graph_signature.input_specs
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if isinstance(placeholders[-1].meta["val"].shape[0], int):
        raise NoProgramError(f"the learner takes batches of {len(inputs)} alone")
    names, constants = [], {}
    state = learner.state_dict()
    for weight in weights:
        name = str(weight.target)
        if weight.target is None or not isinstance(weight.arg, TensorArgument):
            raise NoProgramError("its graph takes more than one tensor of inputs")
        if name not in state:
            constants[name] = (exported.constants | dict(learner.named_buffers()))[name].detach().contiguous().clone()
        names.append(("model.safetensors" if name in state else "constants.safetensors", name))
    with evaluating(learner), _quiet():
        single = exported.module()(inputs[:1])
        if not torch.allclose(single, learner(inputs[:1]), rtol=1e-4, atol=1e-6, equal_nan=True):
            raise NoProgramError("the graph gives other outputs than the learner, which may draw random numbers")
    arguments = [weight.arg.name for weight in weights] + [last.arg.name]
    if not all(name.isidentifier() and not keyword.iskeyword(name) for name in arguments):
        raise NoProgramError("its weights have names that Python doesn't allow")
    lines = graph.code.strip().splitlines()[1:]
    body = textwrap.indent(textwrap.dedent("\n".join(line for line in lines if line.strip())), "    ")
    if not body.rstrip().endswith(",)"):
        raise NoProgramError("the learner returns more than one tensor")
    shape = str(("B", *inputs.shape[1:])).replace("'", "")
    listing = "".join(f"    {pair!r},\n" for pair in names)
    source = _TEMPLATE.format(
        about=about.replace('"""', ""),
        dtype=str(inputs.dtype),
        shape=shape,
        weights=f"[\n{listing}]",
        arguments=", ".join(arguments),
        body=_returning_one(body.rstrip()),
    )
    return Program(source, constants)


def _returning_one(body: str) -> str:
    """Return the body of a function that returns a tensor in place of a tuple of one."""
    head, _, last = body.rpartition("\n")
    return f"{head}\n{last.replace('return (', 'return ').removesuffix(',)')}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export from warning and logging."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
