"""What a whole gateway does with who means it ill."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from urllib.parse import urlsplit

import pytest
from whole import NAME, PROMPT, Whole


def test_without_a_key_only_pages_and_health_answer(whole: Whole) -> None:
    document = whole.ask("GET", "/openapi.json").json["paths"]
    asked = 0
    for path, methods in document.items():
        if path in ("/healthz", "/readyz"):
            continue
        for method in methods:
            answer = whole.ask(method.upper(), re.sub(r"{\w+}", "video_1", path))
            assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", (method, path)
            asked += 1
    assert asked >= 12
    assert [whole.ask("GET", path).status for path in ("/", "/healthz", "/readyz")] == [200, 200, 200]


def test_a_form_of_another_site_makes_no_video(whole: Whole) -> None:
    before = len(whole.ask("GET", "/v1/videos?limit=100", whole.ada).json["data"])
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        answer = whole.form("/v1/videos", whole.ada, file="input_reference", prompt="x", headers=headers)
        assert (answer.status, answer.code) == (403, "CROSS_SITE")
    assert len(whole.ask("GET", "/v1/videos?limit=100", whole.ada).json["data"]) == before


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../../etc/passwd",
        "/page/%2e%2e/%2e%2e/app.py",
        "/page//etc/passwd",
        "/v1/videos/../../etc/passwd/content",
        "/v1/videos/%2e%2e%2fvideo/content",
        "/v1/videos/a%00b/content",
        "/v1/videos/" + "a" * 5000,
        "/v1/videos/video_1'--",
    ],
)
def test_paths_reach_no_file(whole: Whole, path: str) -> None:
    assert whole.ask("GET", path, whole.ada).status == 404


def test_a_key_in_the_url_reaches_nothing(whole: Whole) -> None:
    for path in (f"/v1/videos?api_key={whole.ada}", f"/v1/videos/video_1/events?key={whole.ada}", f"/?{whole.ada}"):
        answer = whole.ask("GET", path, whole.ada)
        assert (answer.status, answer.code) == (401, "UNAUTHENTICATED")


def test_metrics_want_their_scope(whole: Whole) -> None:
    assert whole.ask("GET", "/v1/videos", whole.ada).status == 200
    assert whole.ask("GET", "/metrics", whole.ada).code == "SCOPE_MISSING"
    text = whole.ask("GET", "/metrics", whole.all).body.decode()
    assert re.search(r'consisid_gateway_refusals_total\{code="SCOPE_MISSING"\} [1-9]', text)
    assert "/v1/videos" in text and not re.search("(video|char)_[0-9a-f]{8}", text)


def test_a_key_has_no_more_jobs_than_it_may(whole: Whole) -> None:
    answers = []

    def post() -> None:
        answers.append(whole.form("/v1/videos", whole.few, file="input_reference", prompt="x"))

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.code == "LIMIT_REACHED" and int(refused.headers["retry-after"]) > 0


def test_only_some_keys_may_have_others_wait(whole: Whole) -> None:
    for key, status in ((whole.ada, 403), (whole.all, 200)):
        answer = whole.form("/v1/videos", key, file="input_reference", prompt="x", priority="urgent")
        assert (answer.status, answer.code) == (status, "SCOPE_MISSING" if status == 403 else "")


def test_slow_bodies_of_one_tenant_hold_up_nobody_else(whole: Whole) -> None:
    head = f"POST /v1/videos HTTP/1.1\r\nHost: {urlsplit(whole.url).netloc}\r\nAuthorization: Bearer {whole.bob}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    slow = [whole.connect() for _ in range(24)]  # sixteen bodies are read at once
    try:
        for connection in slow:
            connection.connect()
            connection.sock.sendall(head.encode())
        began = time.monotonic()
        whole.video(whole.ada)
        assert time.monotonic() - began < 5
    finally:
        for connection in slow:
            connection.close()


def test_a_key_has_no_more_streams_than_it_may(whole: Whole) -> None:
    job = whole.video(whole.bob)
    streams: list[http.client.HTTPConnection] = []
    statuses = []
    for _ in range(70):
        streams.append(whole.connect())
        streams[-1].request("GET", f"/v1/videos/{job}/events", headers={"Authorization": f"Bearer {whole.bob}"})
    statuses = [stream.getresponse().status for stream in streams]
    try:
        assert statuses.count(200) == 64 and statuses.count(429) == 6
        assert "consisid_gateway_listeners 64.0" in whole.ask("GET", "/metrics", whole.all).body.decode()
        assert whole.ask("GET", f"/v1/videos/{job}", whole.bob).status == 200, "others go on"
    finally:
        for stream in streams:
            stream.close()
    deadline = time.monotonic() + 10
    while "consisid_gateway_listeners 0.0" not in whole.ask("GET", "/metrics", whole.all).body.decode():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_audit_log_knows_who_and_not_what(whole: Whole) -> None:
    job = whole.video(whole.ada)
    assert whole.form("/v1/videos/characters", whole.ada, file="video", name=NAME).status == 200
    assert whole.ask("DELETE", f"/v1/videos/{job}", whole.ada).status == 200
    assert whole.ask("DELETE", f"/v1/videos/{job}", whole.bob).status == 404
    text = whole.audit.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    of_job = [(line["action"], line["tenant"], line["outcome"]) for line in lines if line["subject"] == job]
    assert of_job == [
        ("video.created", "ada", "OK"),
        ("video.deleted", "ada", "OK"),
        ("video.deleted", "bob", "VIDEO_NOT_FOUND"),
    ]
    assert ("character.created", "ada") in {(line["action"], line["tenant"]) for line in lines}
    for secret in (NAME, PROMPT, whole.ada, "prompt"):
        assert secret not in text
