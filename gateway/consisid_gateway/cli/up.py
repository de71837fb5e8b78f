"""`consisid up`: everything on one machine."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from consisid_gateway.cli.resolving import Data, needing
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.signals import end_when_told, reload_when_told


def up(
    *,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Folder written by `consisid export`. Default: CONSISID_SERVE_BUNDLE."),
    ] = None,
    data: Data = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address or name of this machine to bind; all but loopback needs an API key. Default: 127.0.0.1.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 chooses a free port. Default: 8080.")] = None,
    as_json: Json = False,
) -> None:
    """Serve a bundle, make videos as durable jobs, and open the page, on this machine, until SIGINT or SIGTERM.

    Starts `consisid serve`, `consisid worker` and `consisid gateway`, and each again where it dies; each reads its own
    settings from CONSISID_SERVE_…, CONSISID_WORKER_… and CONSISID_GATEWAY_…, and from files that these name
    (docs/settings.md). What waits or runs when it ends, also by kill -9, goes on when it is started again on the same
    folder of data. SIGHUP makes the server read the bundle again.
    """
    with needing("up"):
        from consisid_gateway.settings.storage import data_folder
        from consisid_gateway.up.folder import held
        from consisid_gateway.up.parts import DOOR, GATEWAY, Chosen, parts
        from consisid_gateway.up.supervisor import Supervisor
    os.umask(0o077)
    end_when_told()
    chosen = Chosen.read(_given(bundle=bundle), _given(data=data, host=host, port=port))
    folder = data_folder(chosen.gateway.data)
    with held(folder):
        supervisor = Supervisor(parts(chosen), _log)
        reload_when_told(lambda: supervisor.reload(DOOR))
        try:
            url = supervisor.start()[GATEWAY]["url"]
            told = {"url": url, "data": str(folder)}
            emit(as_json, told, f"page     {url}/\ndata     {folder}\ntry it   {_curl(url)}")
            supervisor.run()
        finally:
            supervisor.stop()


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _curl(url: str) -> str:
    return f"curl {url}/v1/videos -F prompt='a man reading by the sea' -F input_reference=@portrait.png"


def _log(name: str, line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has left
        print(f"{name:8}| {line}", file=sys.stderr, flush=True)
