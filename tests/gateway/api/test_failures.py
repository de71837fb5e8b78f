"""Every answer that is none of a video's is JSON with our code."""

from __future__ import annotations

from typing import Any

import pytest

from consisid_gateway.jobs import reading


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/videos/", 404),
        ("GET", "/v2/health/live", 404),
        ("PUT", "/v1/videos", 405),
        ("PATCH", "/v1/videos/video_x", 405),
        ("POST", "/v1/videos/video_x/content", 405),
        ("GET", "/v1/videos/video_x/remix", 405),
        ("GET", "/v1/videos/video_x/nothing", 404),
    ],
)
def test_what_there_is_not(http: Any, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, "NOT_FOUND", "invalid_request_error")
    assert set(error) == {"message", "type", "code", "param", "remedy"}
    assert ("allow" in answer.headers) == (status == 405)


def test_what_nobody_expected(http: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(reading, "get", broken)
    answer = http.get("/v1/videos/video_x")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (500, "INTERNAL", "server_error")
    assert "secret" not in answer.text
    reference = error["message"].rsplit(" ", 1)[1]
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)


def test_a_database_that_is_away(serving: Any) -> None:
    with serving() as gateway, gateway.client() as http:
        gateway.database.engine.dispose()
        path = gateway.database.engine.url.database
        import os

        os.rename(path, f"{path}.away")
        os.mkdir(path)
        for name in (f"{path}-wal", f"{path}-shm"):
            if os.path.exists(name):
                os.remove(name)
        for answer in (
            http.get("/v1/videos"),
            http.get("/v1/videos/video_x"),
            http.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": gateway.portrait}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) > 0
        assert gateway.objects() == set()
        os.rmdir(path)
        os.rename(f"{path}.away", path)


def test_a_store_that_is_away(serving: Any) -> None:
    with serving() as gateway, gateway.client() as http:
        root = gateway.folder / "jobs"
        root.write_bytes(b"a file where a folder belongs")
        answer = http.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": gateway.portrait})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert gateway.rows() == 0
        root.unlink()


def test_scopes(gateway: Any) -> None:
    from consisid_gateway.access.caller import Caller, Scope
    from consisid_gateway.errors import ScopeMissing

    with pytest.raises(ScopeMissing, match="videos:write"):
        Caller(scopes=frozenset({Scope.READ})).require(Scope.WRITE)
