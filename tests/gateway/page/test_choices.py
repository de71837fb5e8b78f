"""`GET /v1/options`: what the form offers."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from page_gateway import Gateway

from consisid_runtime.options import Options
from consisid_runtime.tiers import TIERS


def ask(gateway: Gateway) -> Any:
    with urllib.request.urlopen(f"{gateway.url}v1/options", timeout=5) as answer:
        return json.load(answer)


def test_every_tier_and_every_option(gateway: Gateway) -> None:
    found = ask(gateway)
    assert [tier["name"] for tier in found["tiers"]] == list(TIERS)
    assert {tier["name"]: tier["steps"] for tier in found["tiers"]}["draft"] == 25
    assert found["defaults"].keys() == Options.__dataclass_fields__.keys()
    assert (found["defaults"]["fps"], found["defaults"]["guidance"], found["defaults"]["frames"]) == (8, 6.0, None)
    assert found["upload_bytes"] == gateway.parts.upload_bytes


def test_workers_that_are_ready(gateway: Gateway) -> None:
    assert ask(gateway)["workers"] == 0
    gateway.hand.beat()
    assert ask(gateway)["workers"] == 1
