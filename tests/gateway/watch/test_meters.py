"""A gateway's metrics are those that docs/gateway-data.md lists, and tell the truth."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from fastapi import APIRouter, FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from consisid_gateway.jobs import workers
from consisid_gateway.jobs.database import Database, now
from consisid_gateway.jobs.job import Status
from consisid_gateway.jobs.tables import deliveries, jobs
from consisid_gateway.watch import stored
from consisid_gateway.watch.meters import Meters
from consisid_gateway.watch.observing import Observing

ROOT = Path(__file__).parents[3]


def values(meters: Meters) -> dict[str, float]:
    """`name{label=value,…}` → value."""
    found = {}
    for family in text_string_to_metric_families(meters.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("consisid_gateway_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def add(database: Database, status: Status, *, age: float = 0.0, urgent: bool = False, number: int = 0) -> None:
    values = {"id": f"{status}-{age}-{urgent}-{number}", "status": status, "urgent": urgent, "created_at": now() - age}
    rest = {"tenant": "ada", "model": "m", "prompt": "a cat", "options": "{}", "portrait": "p"}
    with database.transaction() as connection:
        connection.execute(sa.insert(jobs).values(values | rest))


def ask(app: Any, path: str, method: str = "GET") -> int:
    status = 0

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], "root_path": ""}
    asyncio.run(app(scope, receive, send))
    return status


def test_jobs_queues_workers_and_webhooks(database: Database) -> None:
    for number in range(3):
        add(database, Status.QUEUED, age=10.0, number=number)
    add(database, Status.QUEUED, age=100.0)
    add(database, Status.QUEUED, age=5.0, urgent=True)
    add(database, Status.FAILED)
    with database.transaction() as connection:
        for worker, ready in (("w1", True), ("w2", False)):
            workers.beat(connection, worker, worker, ready=ready)
        for job, ended in (("a", "delivered_at"), ("b", "failed_at"), ("c", "failed_at")):
            row = {"job": job, "url": "u", "body": "b", "next_at": 0.0, ended: 1.0}
            connection.execute(sa.insert(deliveries).values(row))
    found = values(Meters(database, lambda: 7))
    assert found["jobs{status=queued}"] == 5 and found["jobs{status=failed}"] == 1
    assert found["jobs{status=completed}"] == found["jobs{status=in_progress}"] == 0
    assert found["queue{priority=ordinary}"] == 4 and found["queue{priority=urgent}"] == 1
    assert found["queue_oldest_seconds{priority=ordinary}"] == pytest.approx(100, abs=2)
    assert found["queue_oldest_seconds{priority=urgent}"] == pytest.approx(5, abs=2)
    assert found["workers_ready"] == 1 and found["listeners"] == 7 and found["database_up"] == 1
    assert [found[f"webhooks{{state={state}}}"] for state in ("delivered", "failed", "due")] == [1, 2, 0]


def test_a_database_that_is_away_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "FRESH_SECONDS", 0.0)
    meters = Meters(database, lambda: 0)
    assert values(meters)["database_up"] == 1

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception())

    monkeypatch.setattr(workers, "ready", away)
    found = values(meters)
    assert found["database_up"] == 0 and not [name for name in found if name.startswith(("jobs", "queue"))]


def test_the_database_is_asked_once_in_five_seconds(database: Database) -> None:
    meters = Meters(database, lambda: 0)
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))
    for _ in range(5):
        meters.text()
    assert len(statements) == 4


def test_requests_by_route_and_not_by_path(database: Database) -> None:
    meters = Meters(database, lambda: 0)
    app, routes = FastAPI(), APIRouter(prefix="/v1")

    @routes.get("/videos/{video_id}")
    async def get(video_id: str) -> str:
        return video_id

    app.include_router(routes)
    watched = Observing(app, meters)
    assert [ask(watched, f"/v1/videos/{number}") for number in range(5)] == [200] * 5
    assert [ask(watched, f"/nowhere/{number}") for number in range(3)] == [404] * 3
    assert ask(watched, "/v1/videos/1", "SPLURGE") == 405
    found = values(meters)
    assert found["requests_total{method=GET,route=/v1/videos/{video_id},status=200}"] == 5
    assert found["requests_total{method=GET,route=other,status=404}"] == 3
    assert len([name for name in found if name.startswith("requests_total")]) == 3
    assert found["request_seconds_count{method=GET,route=/v1/videos/{video_id}}"] == 5
    assert found["refusals_total{code=HTTP_404}"] == 3


def test_the_code_of_an_error_is_counted(database: Database) -> None:
    meters = Meters(database, lambda: 0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["code"] = "STORAGE_UNAVAILABLE"
        await send({"type": "http.response.start", "status": 503, "headers": []})

    assert values(meters)["refusals_total{code=STORAGE_UNAVAILABLE}"] == 0
    ask(Observing(app, meters), "/v1/videos")
    assert values(meters)["refusals_total{code=STORAGE_UNAVAILABLE}"] == 1


def test_the_documented_names_and_no_others(database: Database) -> None:
    meters = Meters(database, lambda: 0)
    meters.answered("GET", "/", 200, 0.1, None)
    found = {}
    for family in text_string_to_metric_families(meters.text().decode()):
        for sample in family.samples:
            if sample.name.startswith("consisid_") and not sample.name.endswith("_created"):
                name = re.sub(r"_(bucket|sum|count)$", "", sample.name) if family.type == "histogram" else sample.name
                found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    page = (ROOT / "docs" / "gateway-data.md").read_text()
    table = page.partition("| metric | |\n")[2].partition("\n\n")[0]
    cells = re.findall(r"`([^`]+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[1:]))
    split = (cell.partition("{") for cell in cells)
    assert found == {name: set(re.findall(r"\w+", labels)) for name, _, labels in split}


def test_alerts_and_dashboard_use_no_other_names(database: Database) -> None:
    (group,) = yaml.safe_load((ROOT / "deploy" / "monitoring" / "gateway.yaml").read_text())["groups"]
    panels = json.loads((ROOT / "deploy" / "monitoring" / "gateway-dashboard.json").read_text())["panels"]
    expressions = [rule["expr"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    meters = Meters(database, lambda: 0)
    meters.answered("GET", "/", 200, 0.1, None)
    families = text_string_to_metric_families(meters.text().decode())
    names = {sample.name for family in families for sample in family.samples}
    used = {name for expression in expressions for name in re.findall(r"\b(?:consisid|process)_\w+", expression)}
    assert len(used) >= 10 and used <= names
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
