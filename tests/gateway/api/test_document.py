"""The OpenAPI document: whole, and true by requests that are made from it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from consisid_gateway.api.reading.asked import KNOWN
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options


@pytest.fixture(scope="module")
def document(gateway: Any) -> dict[str, Any]:
    with gateway.client() as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_every_operation_documents_its_refusals(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert {"401", "403", "429", "500", "503"} <= set(operation["responses"]), (method, path)
            assert "422" not in operation["responses"] and operation["summary"], (method, path)
            for status, answer in operation["responses"].items():
                assert answer["description"] and (int(status) < 400 or "`" in answer["description"]), (method, path)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data"])
def test_a_request_has_every_option(document: dict[str, Any], kind: str) -> None:
    body = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"][kind]["schema"]
    assert set(body["properties"]) == set(KNOWN) >= {field.name for field in fields(Options)}
    assert body["required"] == ["prompt"] and body["additionalProperties"] is False


def values(schema: dict[str, Any]) -> list[Any]:
    """What a schema allows at its borders."""
    if "enum" in schema:
        return list(schema["enum"])
    if "anyOf" in schema:
        return [1, "only"]
    kinds: dict[str, list[Any]] = {"boolean": [True, False], "string": ["text"]}
    return kinds.get(schema["type"]) or [schema["minimum"], schema["maximum"]]


def test_options_take_what_is_documented_and_no_more(document: dict[str, Any]) -> None:
    schema = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for field in fields(Options):
        documented = schema["properties"][field.name]
        for value in values(documented):
            Options(**{field.name: value})
        for bound, step in (("minimum", -1), ("maximum", 1)):
            if bound in documented:
                with pytest.raises(InvalidOption):
                    Options(**{field.name: documented[bound] + step})


@pytest.mark.proof
def test_requests_that_are_made_from_it(serving: Any, document: dict[str, Any]) -> None:
    """By schemathesis: no 5xx, no answer that is not documented."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    often = settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    checked = 0
    with serving(character_seconds=0.0) as gateway:
        for found in schemathesis.openapi.from_url(f"{gateway.url}/openapi.json").get_all_operations():

            @often
            @given(case=found.ok().as_strategy())
            def each(case: Any) -> None:
                case.call_and_validate(checks=checks)

            each()
            checked += 1
    assert checked == sum(len(path) for path in document["paths"].values())
