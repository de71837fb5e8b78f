"""`consisid worker`: makes videos with the server beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_gateway.cli.resolving import Data, Database, Objects, PrintConfig, chosen, needing
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.request_options import CA
from consisid_runtime.cli.signals import end_when_told


def worker(
    *,
    data: Data = None,
    database: Database = None,
    objects: Objects = None,
    server: Annotated[
        str | None, typer.Option("--server", help="URL of `consisid serve`. Default: grpc://127.0.0.1:8001.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the server's bearer token. Default: CONSISID_TOKEN, or none."),
    ] = None,
    ca: CA = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the worker, for people. Default: the machine's.")
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(
            "--webhook-secret-file", help="File with the secret that signs webhooks. Default: none is called."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings. Default: CONSISID_WORKER_CONFIG, or none."),
    ] = None,
    print_config: PrintConfig = False,
    as_json: Json = False,
) -> None:
    """Take jobs from the database and have a server make their videos, until SIGINT or SIGTERM.

    A worker that ends leaves its job, from the last checkpoint on, to another one. Every flag is a setting, which a
    variable or a file can give as well, and there are more: docs/settings.md.
    """
    with needing("worker"):
        from consisid_gateway.settings.settings import WorkerSettings
    flags = {
        "data": data,
        "database": database,
        "objects": objects,
        "server": server,
        "token_file": token_file,
        "ca": ca,
        "name": name,
        "webhook_secret_file": webhook_secret_file,
    }
    settings = chosen(WorkerSettings, flags, config, print_config=print_config, as_json=as_json)
    if settings is None:
        return
    with needing("worker"):
        from consisid_gateway.serving.worker import work
    end_when_told()
    work(settings, lambda called: emit(as_json, {"worker": called}, f"worker   {called}"))
