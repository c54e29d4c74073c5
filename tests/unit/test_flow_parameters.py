"""Parameters of the flows, as the forms of the Prefect UI show them. tests/system/test_ui.py fills one in."""

from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow

from flows.grow import grow
from flows.layers import layers
from flows.measure import measure
from flows.sweep import sweep

FLOWS = [sweep, grow, measure, layers]


def fields_of(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field of a form, with its name."""
    if isinstance(schema, list):
        for part in schema:
            yield from fields_of(part)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for part in schema.values():
            yield from fields_of(part)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_has_its_name_a_place_and_a_description(flow: Flow[..., Any]):
    schema = flow.parameters.model_dump()
    models = schema["definitions"]
    for name, field in fields_of(schema):
        described = models[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
        assert field["title"] == name and "position" in field
        assert name in ("kind", "activations") or "description" in field | described, name


def needs_json(field: dict[str, Any]) -> bool:
    """Tell whether the form has nothing for a field but a box for JSON."""
    if "$ref" in field:
        return False
    if "anyOf" in field:
        return any(needs_json(option) for option in field["anyOf"])
    if field["type"] == "array":
        return needs_json(field["items"])
    return field["type"] == "object" and not field["properties"]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_no_field_needs_json(flow: Flow[..., Any]):
    assert [name for name, field in fields_of(flow.parameters.model_dump()) if needs_json(field)] == []


def test_the_kinds_of_a_cluster_are_alternatives_that_are_named_like_it():
    schema = sweep.parameters.model_dump()
    kinds = {}
    for option in schema["properties"]["cluster"]["anyOf"]:
        model = schema["definitions"][option["$ref"].rpartition("/")[2]]
        kinds[model["title"]] = model["properties"]["kind"]["enum"]
    assert kinds == {kind: [kind] for kind in ("local", "scheduler", "slurm", "kubernetes")}


def test_a_network_of_the_form_is_one_of_the_settings(tmp_path):
    """What the form sends for a mapping: null where nothing was typed, and only the changes of the training."""
    typed = {"reference": "small:vgg", "name": "late", "group": None, "grid": None, "training": {"epochs": 3}}
    parameters = {"settings": {"networks": ["small:resnet18@none", typed]}, "store": str(tmp_path), "cluster": {}}
    checked = sweep.validate_parameters(parameters)
    member = checked["settings"].members[1]
    assert (member.name, member.training.epochs, member.training.batch_size) == ("late", 3, 128)
    assert checked["cluster"].kind == "local"
