"""``alcore describe``: the parameters and documentation of one name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from alcore.cli.common import AsJson
from alcore.errors import UsageError, did_you_mean
from alcore.plugins.registry import KINDS, installed, load_factory


def describe(
    kind: Annotated[str, typer.Argument(help="loop, query, label, metrology, data, learner, queue, stop or observe.")],
    name: Annotated[str, typer.Argument(help="One of the names that `alcore plugins` lists.")],
    as_json: AsJson = False,
) -> None:
    """Print the parameters of a strategy with types, defaults and documentation."""
    from alcore.plugins.signatures import describe_factory

    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind: {did_you_mean(kind, KINDS)}.")
    offer = installed().offer(kind, name)
    factory = load_factory(offer)
    content = {
        "kind": kind,
        "name": name,
        "package": offer.plugin.distribution,
        "version": offer.plugin.version,
        "class": f"{factory.__module__}.{getattr(factory, '__qualname__', type(factory).__qualname__)}",
        **describe_factory(factory),
    }
    if as_json:
        typer.echo(json.dumps(content, indent=1))
        return
    typer.echo(f"{kind} {name}: {content['class']}, from {offer.plugin}\n")
    if content["parameters"]:
        typer.echo("Parameters, set with --set " + f"{kind}.{name}.PARAMETER=VALUE:")
        for one in content["parameters"]:
            default = "required" if one["required"] else f"default {json.dumps(one['default'])}"
            typer.echo(f"  {one['name']} ({one['type']}; {default})")
            if one["doc"]:
                typer.echo(f"      {one['doc']}")
        typer.echo("")
    typer.echo(content["doc"] or "It has no documentation.")
