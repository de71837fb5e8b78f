"""`consisid health`: whether a server works, for probes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.request_options import CA
from consisid_runtime.errors import Busy, ServerUnreachable


def health(
    url: Annotated[str, typer.Argument(help="grpc://host:port or http://host:port; with TLS grpcs://, https://")],
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also run a tiny request through every stage, unless the server is busy."),
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each of the two.")] = 10.0,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the bearer token. Default: CONSISID_TOKEN, or none.")
    ] = None,
    ca: CA = None,
    as_json: Json = False,
) -> None:
    """Ask a server whether it is ready, and with --deep whether it can make a video; for probes.

    A server that works on other requests is well: it is not disturbed, and says when it expects to be free.
    """
    from consisid_runtime.client.client import Client
    from consisid_runtime.files.small_file import read_small

    token = None if token_file is None else read_small(token_file).decode(errors="replace").strip()
    begin = time.monotonic()
    with Client(url, timeout=timeout, token=token, ca=ca) as client:
        if not client.ready():
            raise ServerUnreachable(f"{url} does not answer, or is not ready; see its log")
        found: dict[str, Any] = {"ready": True, "busy": False}
        if deep:
            found |= _deep(client)
    found["seconds_in_all"] = round(time.monotonic() - begin, 4)
    emit(as_json, found, _text(found))


def _deep(client: Any) -> dict[str, Any]:
    try:
        return dict(client.trial())
    except Busy as busy:
        return {"busy": True, "retry_after": busy.retry_after}


def _text(found: dict[str, Any]) -> str:
    if found["busy"]:
        return f"ready, and busy: a trial may be sent in {found['retry_after']:g} s"
    lines = [f"ready; answered in {found['seconds_in_all']:.2f} s"]
    lines += [f"  {stage:8}{seconds:8.2f} s" for stage, seconds in found.get("seconds", {}).items()]
    return "\n".join(lines)
