"""``alcore describe``: the names of a kind, or the parameters and documentation of one name."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from alcore.commands.options import AsJson, installed_plugins
from alcore.commands.tables import table
from alcore.errors import UsageError, did_you_mean
from alcore.plugins.registry import KINDS, Offer, Registry, load_factory

_SETTINGS = {"driver": "how a run goes", "training": "how the learner is trained"}


def describe(
    context: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(
            help="loop, query, label, metrology, data, learner, queue, stop or observe; or driver, training.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of the names of this kind; all are listed without it.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the names of a kind, or the parameters of one name with types, defaults and documentation."""
    registry = installed_plugins(context)
    content: Any
    if kind is None:
        content, text = _kinds(registry)
    elif kind in _SETTINGS:
        content, text = _settings(kind, name)
    elif kind in KINDS and name is None:
        content, text = _names(registry, kind)
    elif kind in KINDS and name is not None:
        content, text = _one(registry.offer(kind, name))
    else:
        raise UsageError(_unknown(registry, kind))
    typer.echo(json.dumps(content, indent=1) if as_json else text)


def _unknown(registry: Registry, kind: str) -> str:
    """Say what a word is that is no kind."""
    of_kinds = [other for other in KINDS if any(offer.name == kind for offer in registry.offers(other))]
    if of_kinds:
        return f"{kind!r} is the name of a {' and of a '.join(of_kinds)}: alcore describe {of_kinds[0]} {kind}"
    return f"{kind!r} is not a kind: {did_you_mean(kind, [*KINDS, *_SETTINGS])}."


def _kinds(registry: Registry) -> tuple[dict[str, Any], str]:
    names_of: dict[str, Any] = {kind: sorted(offer.name for offer in registry.offers(kind)) for kind in KINDS}
    lines = [
        textwrap.fill(
            f"{kind:<10} {', '.join(names) or 'none'}", 80, subsequent_indent=" " * 11, break_on_hyphens=False
        )
        for kind, names in names_of.items()
    ]
    lines += [f"{kind:<10} {what}" for kind, what in _SETTINGS.items()]
    return names_of, "\n".join([*lines, "", "More: alcore describe KIND, or alcore describe KIND NAME"])


def _names(registry: Registry, kind: str) -> tuple[list[dict[str, Any]], str]:
    from alcore.plugins.signatures import describe_factory

    offers = [
        {"name": offer.name, "package": offer.plugin.distribution, "summary": _summary(offer, describe_factory)}
        for offer in sorted(registry.offers(kind), key=lambda offer: offer.name)
    ]
    rows = [[offer["name"], offer["summary"]] for offer in offers]
    text = table(rows, [kind, "what it does"]) if rows else f"No {kind} is installed."
    return offers, f"{text}\n\nMore: alcore describe {kind} NAME"


def _summary(offer: Offer, describe_factory: Any) -> str:
    """Return the first line of a documentation; where its plugin can't be loaded, why."""
    try:
        return str(describe_factory(load_factory(offer))["summary"])
    except Exception as error:  # noqa: BLE001 - the others are listed all the same
        return f"can't be loaded: {type(error).__name__}: {error}"


def _settings(kind: str, name: str | None) -> tuple[dict[str, Any], str]:
    from alcore.experiment.settings import DRIVER, TRAINING
    from alcore.plugins.signatures import describe_parameters

    parameters = (DRIVER if kind == "driver" else TRAINING).parameters
    described = describe_parameters(parameters.values())
    if name is not None:
        described = [parameter for parameter in described if parameter["name"] == name]
        if not described:
            raise UsageError(f"[{kind}] has no parameter {name!r}: {did_you_mean(name, parameters)}.")
    text = f"[{kind}] of an experiment: {_SETTINGS[kind]}.\n\n" + _parameters_text(described, kind)
    return {"kind": kind, "parameters": described}, text.rstrip()


def _one(offer: Offer) -> tuple[dict[str, Any], str]:
    from alcore.plugins.signatures import describe_factory

    factory = load_factory(offer)
    content = {
        "kind": offer.kind,
        "name": offer.name,
        "package": offer.plugin.distribution,
        "version": offer.plugin.version,
        "class": f"{factory.__module__}.{getattr(factory, '__qualname__', type(factory).__qualname__)}",
        **describe_factory(factory),
    }
    text = f"{offer.kind} {offer.name}: {content['class']}, from {offer.plugin}\n\n"
    if content["parameters"]:
        text += _parameters_text(content["parameters"], f"{offer.kind}.{offer.name}")
    return content, text + (_without_parameters(content["doc"]) or "It has no documentation.")


def _parameters_text(parameters: Iterable[dict[str, Any]], where: str) -> str:
    lines = [f"Parameters, set with --set {where}.PARAMETER=VALUE:"]
    for parameter in parameters:
        default = "required" if parameter["required"] else f"default {json.dumps(parameter['default'])}"
        lines.append(f"  {parameter['name']} ({parameter['type']}; {default})")
        if parameter["doc"]:
            lines.append(textwrap.fill(parameter["doc"], 80, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines) + "\n\n"


def _without_parameters(doc: str) -> str:
    """Return a documentation without its section of parameters, which are printed above it."""
    lines, kept, skips = doc.splitlines(), [], False
    for place, line in enumerate(lines):
        underline = lines[place + 1].strip() if place + 1 < len(lines) else ""
        if line.strip() and set(underline) == {"-"} and not line.startswith(" "):
            skips = line.strip() == "Parameters"
        if not skips:
            kept.append(line)
    return "\n".join(kept).strip()
