"""``alcore describe``: every installed name has something to describe."""

from __future__ import annotations

import dataclasses
import json

import pytest

from alcore.config import DriverConfig, TrainingConfig
from alcore.plugins import describe_factory, installed, load_factory
from alcore.plugins.registry import KINDS

OFFERS = [offer for kind in KINDS for offer in installed().offers(kind)]


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: f"{offer.kind} {offer.name}")
def test_installed_name_is_documented(offer):
    described = describe_factory(load_factory(offer))
    assert described["doc"]
    if offer.kind != "queue":  # those of the standard library have no numpydoc
        assert all(parameter["doc"] for parameter in described["parameters"])


def test_each_kind_lists_its_names_with_what_they_do(command):
    listing = command("describe")[0]
    for kind in KINDS:
        rows = command("describe", kind)[0]
        for offer in (offer for offer in OFFERS if offer.kind == kind):
            assert offer.name in listing
            summary = describe_factory(load_factory(offer))["summary"]
            assert any(row.split()[:1] == [offer.name] and summary in row for row in rows.splitlines())
    assert max(map(len, listing.splitlines())) <= 80


@pytest.mark.parametrize(("table", "config"), [("driver", DriverConfig), ("training", TrainingConfig)])
def test_settings_are_described_with_their_defaults(command, table, config):
    described = {
        parameter["name"]: parameter for parameter in json.loads(command("describe", table, "--json")[0])["parameters"]
    }
    fields = {field.name for field in dataclasses.fields(config)}
    assert len(set(described) & fields) >= len(described) - 2
    assert all(parameter["doc"] for parameter in described.values())
    assert f"--set {table}.PARAMETER=VALUE" in command("describe", table)[0]


def test_one_setting_is_described_alone(command):
    assert [
        parameter["name"]
        for parameter in json.loads(command("describe", "driver", "budget", "--json")[0])["parameters"]
    ] == ["budget"]
    assert "did you mean 'budget'?" in command("describe", "driver", "budgt", code=2)[1]


def test_parameters_are_printed_once(command):
    text = command("describe", "query", "uq")[0]
    for parameter in describe_factory(load_factory(installed().offer("query", "uq")))["parameters"]:
        assert text.count(f"  {parameter['name']} (") == 1
        first = " ".join(parameter["doc"].split()[:4])
        assert " ".join(text.split()).count(first) == 1
    assert "Notes\n-----" in text


def test_name_without_its_kind_says_which_kind_it_is(command):
    _, err = command("describe", "uq", code=2)
    assert "'uq' is the name of a query: alcore describe query uq" in err
