"""The table that says which package of this repository a name comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from alcore.errors import PluginError
from alcore.plugins import Registry, installed
from alcore.plugins.registry import KINDS
from alcore.plugins.standard import _NAMES, has_standard_commands, package_of

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_table_has_what_the_plugins_offer_and_nothing_else() -> None:
    offered: dict[str, dict[str, set[str]]] = {}
    for kind in KINDS:
        for offer in installed().offers(kind):
            offered.setdefault(offer.plugin.distribution, {}).setdefault(kind, set()).add(offer.name)
    for plugin in installed().plugins:
        app = typer.Typer()
        for add_commands in plugin.commands:
            add_commands(app)
            names = {command.name for command in app.registered_commands}
            offered.setdefault(plugin.distribution, {})["command"] = names
    table = {package: {kind: set(names.split()) for kind, names in kinds.items()} for package, kinds in _NAMES.items()}
    assert table == {package: offered[package] for package in table}
    assert set(offered) - {"alcore"} == set(table)


def test_standard_commands_are_those_of_the_extra_that_is_standard() -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    standard = {re.split("[>=<]", requirement)[0] for requirement in extras["standard"]}
    assert {package for package in _NAMES if has_standard_commands(package)} == {
        package for package in standard if "command" in _NAMES[package]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_name_that_is_not_installed_says_how_to_install_it(kind: str) -> None:
    for package, kinds in _NAMES.items():
        for name in kinds.get(kind, "").split():
            assert package_of(kind, name) == package
            with pytest.raises(PluginError, match=rf"comes with {package}: pip install {package}, or in a checkout"):
                Registry([]).offer(kind, name)
    assert package_of(kind, "nothing") is None
