"""What browsers are told."""

from __future__ import annotations

import pytest


def policy(answer) -> dict[str, str]:
    parts = answer.headers["content-security-policy"].split("; ")
    return dict(part.split(" ", 1) for part in parts)


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/videos", "/unknown"])
def test_every_answer_has_them(local, path: str) -> None:
    answer = local.ask(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in answer.headers["permissions-policy"]
    assert policy(answer)["frame-ancestors"] == "'none'"


def test_refusals_have_them_too(gate, local) -> None:
    for answer in (gate.ask(), local.ask(host="evil.example"), local.ask(method="POST", origin="null")):
        assert answer.status >= 400 and "content-security-policy" in answer.headers


def test_the_policy_allows_nothing_inline_and_nobody_else(local) -> None:
    found = policy(local.ask("/"))
    assert found["default-src"] == "'none'" and found["script-src"] == found["style-src"] == "'self'"
    assert found["connect-src"] == "'self'" and found["base-uri"] == found["form-action"] == "'none'"
    text = " ".join(found.values())
    assert "unsafe" not in text and "*" not in text and "http" not in text


def test_what_is_somebodys_is_kept_by_nobody(local) -> None:
    assert local.ask().headers["cache-control"] == "private, no-store"
    assert local.ask("/").headers["cache-control"] == "no-cache", "its own word stands"
