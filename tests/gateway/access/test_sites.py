"""Pages of other sites reach nothing through a user's browser."""

from __future__ import annotations

import pytest

from consisid_gateway.access.sites import origin
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import InvalidOption


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:8000", "[::1]:8000", "LOCALHOST:1"])
def test_a_gateway_on_loopback_knows_its_names(local, host: str) -> None:
    assert local.ask(host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil@127.0.0.1.x",
     "10.0.0.1", "0.0.0.0:8000", "[::2]", "[", "löcalhost", "127.0.0.1:8000/x"],
)  # fmt: skip
def test_another_name_is_refused_there(local, host: str) -> None:
    for path in ("/", "/healthz", "/v1/videos"):
        assert local.ask(path, host=host).code == "CROSS_SITE"


def test_names_are_configured(behind, key) -> None:
    gate = behind(host="0.0.0.0", hosts=["video.example"])
    assert gate.ask(key=key(), host="VIDEO.example:443").status == 200
    assert gate.ask("/healthz", host="127.0.0.1").code == "CROSS_SITE"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "cross-site", "content_type": "multipart/form-data; boundary=x"},
    ],
    ids=str,
)
def test_a_form_of_another_site_changes_nothing(local, method: str, headers: dict[str, str]) -> None:
    assert local.ask(method=method, **headers).code == "CROSS_SITE"
    assert local.served == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "none"},
    ],
    ids=str,
)
def test_its_own_page_and_programs_do(local, headers: dict[str, str]) -> None:
    assert local.ask(method="POST", **headers).status == 200


def test_an_allowed_origin_may_and_is_told_so(behind, key) -> None:
    gate, made = behind(host="0.0.0.0", origins=["https://studio.example"]), key()
    asked = {"origin": "https://studio.example", "sec_fetch_site": "cross-site"}
    answer = gate.ask(method="POST", key=made, **asked)
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://studio.example"
    assert "access-control-allow-credentials" not in answer.headers
    preflight = gate.ask(method="OPTIONS", access_control_request_method="POST",
                         access_control_request_headers="authorization,idempotency-key", **asked)  # fmt: skip
    assert preflight.status == 200
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    other = asked | {"origin": "https://evil.example"}
    assert gate.ask(method="POST", key=made, **other).code == "CROSS_SITE"
    assert "access-control-allow-origin" not in gate.ask(key=made, **other).headers


def test_without_a_setting_no_other_origin_may(local) -> None:
    answer = local.ask(origin="https://evil.example")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    preflight = local.ask(method="OPTIONS", origin="https://evil.example", access_control_request_method="POST")
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("name", ["x_forwarded_for", "forwarded", "x_real_ip", "via"])
def test_a_proxy_that_nobody_named_opens_no_gateway_on_loopback(local, behind, name: str) -> None:
    assert local.ask(**{name: "192.0.2.1"}).code == "CROSS_SITE"
    known = behind(proxies=Proxies.read("127.0.0.1"), hosts=["video.example"])
    assert known.ask(host="video.example", **{name: "192.0.2.1"}).status == 200


@pytest.mark.parametrize(
    "text", ["*", "studio.example", "https://studio.example/", "https://a.example/x", "null", "file://x"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(InvalidOption):
        origin(text)
