"""The parts that compute, called in the browser."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
STREAM = (
    ': a comment\r\n\r\nevent: state\r\ndata: {"a": 1}\r\n\r\nid: 7\rdata: one\rdata: two\r\r'
    "event: progress\nid: 8\ndata:x:y\n\nevent: empty\n\ndata: not complete"
)
EVENTS = [
    {"type": "state", "id": "", "data": '{"a": 1}'},
    {"type": "message", "id": "7", "data": "one\ntwo"},
    {"type": "progress", "id": "8", "data": "x:y"},
]


def call(page: Any, module: str, expression: str, argument: Any = None) -> Any:
    """`expression` of the module `m` and the argument `x`."""
    code = (
        f"async (x) => {{ const m = await import(new URL('page/{module}', document.baseURI)); return {expression}; }}"
    )
    return page.evaluate(code, argument)


def test_events_come_out_whole_however_they_are_cut(page: Any) -> None:
    cut = """[1, 2, 3, 7, x.length].map((size) => {
        const parser = new m.Parser();
        const found = [];
        for (let place = 0; place < x.length; place += size) found.push(...parser.push(x.slice(place, place + size)));
        return found;
    })"""
    for found in call(page, "gateway/sse.js", cut, STREAM):
        assert found == EVENTS


def test_words(page: Any) -> None:
    durations = {0: "a few seconds", 12: "about 10 s", 89: "about 90 s", 200: "about 3 min", 9000: "about 3 h"}
    for seconds, text in durations.items():
        assert call(page, "words.js", "m.duration(x)", seconds) == text
    agos = {10: "just now", 60: "1 minute ago", 7200: "2 hours ago", 100000: "yesterday"}
    for seconds, text in agos.items():
        assert call(page, "words.js", "m.ago(1e9 - x, 1e9)", seconds) == text
    assert call(page, "words.js", "[m.size(10), m.size(2.44e6), m.words(' ein Wort – zwei\\n')]") == [
        "1 kB",
        "2.4 MB",
        4,
    ]
    assert call(page, "words.js", "m.percent({ stage: 'denoise', done: 1, total: 3 })") == 35


def test_seeds_stay_whole(page: Any) -> None:
    found = call(page, "gateway/api.js", "m.parse(x)", '{"seed": 9223372036854775807, "options": {"seed": 1}}')
    assert found == {"seed": "9223372036854775807", "options": {"seed": "1"}}


def test_a_face_of_which_nothing_is_known_is_not_judged(page: Any) -> None:
    assert call(page, "form/quality.js", "m.judge({})") == {
        "verdict": "",
        "headline": "A face was found",
        "remarks": [],
    }
