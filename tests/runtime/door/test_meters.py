"""A live door has the metrics that docs/serving.md lists, and deploy/monitoring/ uses no others."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from door_requests import exchange, json_request, place, post, refusal, video
from prometheus_client.parser import text_string_to_metric_families

from consisid_runtime.door.admission.budget import Budget
from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.meters import Meters
from consisid_runtime.door.server.reload import Reload
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.errors import Busy, RequestCancelled, all_errors
from consisid_runtime.serve.edition import Edition

ROOT = Path(__file__).parents[3]
OWN = ("consisid_", "process_")
CACHE_BYTES = "consisid_cache_bytes"
_PARTS = re.compile(r"_(bucket|sum|count)$")
_NAME = re.compile(r"\b(?:consisid|process|nv)_\w+")
COMMANDS = {
    "CERTIFICATE_REFUSED",
    "CHECKPOINT_INVALID",
    "EXPORT_CANCELLED",
    "EXPORT_REFUSED",
    "OUTPUT_BUSY",
    "OUTPUT_UNWRITABLE",
}
"""Codes that no server answers with."""

Names = dict[str, set[str]]
"""Name → its labels, histograms without their endings."""


def names(text: str) -> Names:
    found: Names = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                name = _PARTS.sub("", sample.name) if family.type == "histogram" else sample.name
                found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    return found


def scrape(door: Door) -> str:
    with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
        return str(answer.read().decode())


def documented() -> Names:
    page = (ROOT / "docs" / "serving.md").read_text()
    table = page.partition("| metric | |\n")[2].partition("\n\n")[0]
    cells = re.findall(r"`([^`]+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[1:]))
    return {name: set(re.findall(r"\w+", labels)) for name, _, labels in (cell.partition("{") for cell in cells)}


def expressions() -> Iterator[str]:
    """PromQL of the dashboard and of the alerts."""
    dashboard = json.loads((ROOT / "deploy" / "monitoring" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"
    )
    yield from (rule["expr"] for rule in alerts().values())


def alerts() -> dict[str, Any]:
    (group,) = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.mark.server
def test_a_live_door_has_the_documented_names_and_no_others(tiny_door: Door) -> None:
    assert video(tiny_door) == b"abc"
    assert refusal(exchange(tiny_door.http_url, post(json_request("no face"))))[1] == "NO_FACE"
    with socket.create_connection(place(tiny_door.http_url), timeout=10) as connection:
        connection.sendall(post(json_request("sleep 30")))
        deadline = time.monotonic() + 10
        while "\nconsisid_running 1.0" not in scrape(tiny_door) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert video(tiny_door) == b"abc"
    text = scrape(tiny_door)
    found = names(text)
    own = {name: labels for name, labels in found.items() if name.startswith(OWN)}
    assert own == documented()
    outcomes = {outcome for outcome in ("OK", "NO_FACE", "CANCELLED") if f'outcome="{outcome}"' in text}
    assert outcomes == {"OK", "NO_FACE", "CANCELLED"}
    assert float(re.findall(r"\nconsisid_release_seconds_count (\S+)", text)[0]) >= 1
    found[CACHE_BYTES] = {"cache"}  # of the real model; tests/runtime/serve/test_trial.py sees it there
    used = {_PARTS.sub("", name) for expression in expressions() for name in _NAME.findall(expression)}
    assert used and used <= found.keys()
    nvidia = set(re.findall(r"`(nv_\w+)`", (ROOT / "docs" / "serving.md").read_text()))
    assert nvidia - {"nv_gpu_memory_used_bytes"} <= found.keys(), "those of a GPU are there where there is one"


def test_every_alert_says_what_happened() -> None:
    found = alerts()
    assert {"ConsisIDServerDown", "ConsisIDQueueFull", "ConsisIDFailures", "ConsisIDRestarts"} <= found.keys()
    for rule in found.values():
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]


def test_failures_are_those_that_no_caller_made() -> None:
    (codes,) = re.findall(r'outcome=~"([^"]+)"', alerts()["ConsisIDFailures"]["expr"])
    kinds = [kind for kind in all_errors() if kind.__module__ == "consisid_runtime.errors"]
    failures = {kind.code for kind in kinds if kind.http >= 500} - COMMANDS - {Busy.code}
    every = {kind.code for kind in kinds} | {"OK", RequestCancelled.code}
    assert {code for code in every - COMMANDS if re.fullmatch(codes, code)} == failures


def test_what_an_answer_says_of_itself_is_measured() -> None:
    limits = Limits()
    server: Any = SimpleNamespace(edition=Edition(None, {}, {}))
    queue, supervisor = Queue(limits), Supervisor(server, limits)
    reload = Reload(server, supervisor, queue)
    meters = Meters(limits, queue, Budget(limits), supervisor, reload)
    info = {
        "seconds": {"face": 0.02, "denoise": 3.0, "another": 1.0},
        "denoise": {"computed_steps": 4, "guided_steps": 2},
        "face": {"face_cached": True},
    }
    meters.computed(info, whole=True)
    meters.computed({**info, "face": {"face_cached": False}}, whole=False)
    odd = {"seconds": {"face": "x", "denoise": float("nan")}, "denoise": {"computed_steps": None}, "face": []}
    for nothing in ({}, odd, dict.fromkeys(info)):
        meters.computed(nothing, whole=True)
    text = meters.text().decode()
    for line in (
        'consisid_stage_seconds_sum{stage="denoise"} 6.0',
        'consisid_stage_seconds_count{stage="face"} 2.0',
        'consisid_stage_seconds_count{stage="text"} 0.0',
        "consisid_evaluation_seconds_count 1.0",
        "consisid_evaluation_seconds_sum 0.5",
        'consisid_faces_total{cached="true"} 1.0',
        'consisid_faces_total{cached="false"} 1.0',
    ):
        assert f"\n{line}\n" in text, line
    assert "another" not in text
