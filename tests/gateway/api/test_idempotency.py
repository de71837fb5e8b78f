"""The same request with the same key makes one job, however often and at once it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


def post(gateway: Any, http: Any, key: str, prompt: str = "x", **fields: Any) -> Any:
    return http.post(
        "/v1/videos",
        data={"prompt": prompt, **fields},
        files={"input_reference": gateway.portrait},
        headers={"Idempotency-Key": key},
    )


def test_again(gateway: Any, http: Any) -> None:
    rows = gateway.rows()
    first, second = post(gateway, http, "again", seed="4"), post(gateway, http, "again", seed="4")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["id"] == second.json()["id"] and gateway.rows() == rows + 1


def test_the_form_does_not_matter(gateway: Any, http: Any) -> None:
    import base64

    first = post(gateway, http, "forms", steps="4")
    url = f"data:image/jpeg;base64,{base64.b64encode(gateway.portrait).decode()}"
    body = {"prompt": "x", "steps": 4, "input_reference": {"image_url": url}}
    second = http.post("/v1/videos", json=body, headers={"Idempotency-Key": "forms"})
    assert second.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("other", [{"prompt": "y"}, {"steps": "3"}, {"priority": "urgent"}], ids=str)
def test_another_request(gateway: Any, http: Any, other: dict[str, str]) -> None:
    key = f"other-{next(iter(other))}"
    post(gateway, http, key)
    objects = gateway.objects()
    refused = post(gateway, http, key, **other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert gateway.objects() == objects


def test_another_portrait(gateway: Any, http: Any) -> None:
    post(gateway, http, "portraits")
    fields = {"data": {"prompt": "x"}, "files": {"input_reference": gateway.portrait + b"\0"}}
    refused = http.post("/v1/videos", headers={"Idempotency-Key": "portraits"}, **fields)
    assert refused.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


def test_two_at_once(gateway: Any, http: Any) -> None:
    rows, objects = gateway.rows(), len(gateway.objects())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(gateway, http, "at-once"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (gateway.rows(), len(gateway.objects())) == (rows + 1, objects + 1)


def test_keys_are_of_their_tenant(gateway: Any, http: Any) -> None:
    first = post(gateway, http, "tenants").json()["id"]
    gateway.tenant[0] = "other"
    assert post(gateway, http, "tenants").json()["id"] != first


def test_a_key_that_is_none(gateway: Any, http: Any) -> None:
    refused = post(gateway, http, "k" * 256)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_remix(gateway: Any, http: Any) -> None:
    video = gateway.create(http)["id"]
    send = lambda: http.post(f"/v1/videos/{video}/remix", json={"prompt": "y"}, headers={"Idempotency-Key": "remix"})  # noqa: E731
    assert send().json()["id"] == send().json()["id"]
