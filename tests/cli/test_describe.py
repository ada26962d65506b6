"""``alcore describe``: every installed name has something to describe."""

from __future__ import annotations

import pytest

from alcore.plugins import KINDS, describe_factory, installed, load_factory

OFFERS = [offer for kind in KINDS for offer in installed().offers(kind)]


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: f"{offer.kind} {offer.name}")
def test_installed_name_is_documented(offer):
    described = describe_factory(load_factory(offer))
    assert described["doc"]
    if offer.kind != "queue":  # those of the standard library have no numpydoc
        assert all(one["doc"] for one in described["parameters"])
