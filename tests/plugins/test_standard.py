"""The table that says which package of this repository a name comes from."""

from __future__ import annotations

import pytest

from alcore.errors import PluginError
from alcore.plugins import KINDS, Registry, installed
from alcore.plugins.standard import _NAMES, package_of


def test_table_has_what_the_plugins_offer_and_nothing_else() -> None:
    offered: dict[str, dict[str, set[str]]] = {}
    for kind in KINDS:
        for offer in installed().offers(kind):
            offered.setdefault(offer.plugin.distribution, {}).setdefault(kind, set()).add(offer.name)
    table = {package: {kind: set(names.split()) for kind, names in kinds.items()} for package, kinds in _NAMES.items()}
    assert table == {package: offered[package] for package in table}
    assert set(offered) - {"alcore"} == set(table)


@pytest.mark.parametrize("kind", KINDS)
def test_name_that_is_not_installed_says_how_to_install_it(kind: str) -> None:
    for package, kinds in _NAMES.items():
        for name in kinds.get(kind, "").split():
            assert package_of(kind, name) == package
            with pytest.raises(PluginError, match=rf"comes with {package}: pip install {package}, or in a checkout"):
                Registry([]).offer(kind, name)
    assert package_of(kind, "nothing") is None
