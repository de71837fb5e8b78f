"""The files of the page: which there are, how they are sent, and that no other file is."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from importlib.resources import files
from posixpath import dirname, normpath
from typing import NamedTuple

import pytest
from page_gateway import Gateway

from consisid_gateway.api.page import FILES

HOSTILE = (
    "page/../errors.py",
    "page/%2e%2e/errors.py",
    "page/..%2ferrors.py",
    "page/videos/../../errors.py",
    "page//etc/passwd",
    "page/%2fetc/passwd",
    "page/main.js%00.css",
    "page/",
    "page",
    "page/videos",
    "main.js",
    "page/__init__.py",
)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def get(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    connection.request(method, f"/{path}", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return Answer(answer.status, answer.headers, body)


def test_every_file_is_sent_with_its_type_and_the_policy(gateway: Gateway) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for name, file in FILES.items():
        answer = get(gateway, f"page/{name}")
        assert (answer.status, answer.body) == (200, file.content), name
        assert answer.headers["Content-Type"].startswith(types[name[name.rindex(".") :]])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-cache"
    policy = get(gateway, "").headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
    assert "require-trusted-types-for 'script'" in policy


def test_an_etag_saves_the_bytes(gateway: Gateway) -> None:
    first = get(gateway, "page/style.css")
    again = get(gateway, "page/style.css", **{"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert get(gateway, "page/style.css", **{"If-None-Match": '"other"'}).status == 200


def test_head_has_no_body(gateway: Gateway) -> None:
    answer = get(gateway, "", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(FILES["index.html"].content)


@pytest.mark.parametrize("path", HOSTILE)
def test_nothing_else_is_found(gateway: Gateway, path: str) -> None:
    answer = get(gateway, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"


def test_no_markup_or_style_is_written_by_scripts_or_attributes() -> None:
    """The policy would refuse it in a browser; this names the line."""
    forbidden = re.compile(
        rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\sstyle=|\son\w+=\"|https?://(?!www\.w3)"
    )
    for name, file in FILES.items():
        found = [line for line in file.content.splitlines() if forbidden.search(line)]
        assert not found, (name, found)


def test_the_files_are_packaged() -> None:
    folder = files("consisid_gateway") / "page"
    assert all((folder / name).is_file() for name in FILES)
    assert {"index.html", "style.css", "icon.svg", "main.js"} <= FILES.keys()


def test_scripts_name_what_there_is() -> None:
    """Elements of the page by their id, and each other by their path."""
    markup = FILES["index.html"].content.decode()
    ids = re.findall(r'\sid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\s(?:for|aria-labelledby|aria-describedby)="([^"]+)"', markup)) <= set(ids)
    scripts = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
    for name, text in scripts.items():
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= set(ids), name
        for target in re.findall(r'^import .* from "(.+)";$', text, re.MULTILINE):
            assert normpath(f"{dirname(name)}/{target}").lstrip("/") in scripts, (name, target)


def test_every_name_that_is_imported_is_exported() -> None:
    scripts = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
    exported = {
        name: set(re.findall(r"^export (?:async )?(?:const|function\*?|class) (\w+)", text, re.MULTILINE))
        for name, text in scripts.items()
    }
    for name, text in scripts.items():
        for names, target in re.findall(r'^import \{ (.*) \} from "(.+)";$', text, re.MULTILINE):
            path = normpath(f"{dirname(name)}/{target}").lstrip("/")
            assert set(names.split(", ")) <= exported[path], (name, target)
        for short, target in re.findall(r'^import \* as (\w+) from "(.+)";$', text, re.MULTILINE):
            path = normpath(f"{dirname(name)}/{target}").lstrip("/")
            assert set(re.findall(rf"\b{short}\.(\w+)\(", text)) <= exported[path], (name, target)
