"""`consisid gateway`: the HTTP interface and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_gateway.cli.resolving import Data, Database, Objects, PrintConfig, chosen, needing
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.signals import end_when_told


def gateway(
    *,
    data: Data = None,
    database: Database = None,
    objects: Objects = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address or name of this machine to bind; all but loopback needs an API key. Default: 127.0.0.1.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="0 chooses a free port. Default: 8080.")] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM certificate, with its chain: HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="The certificate's PEM key, unencrypted.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings. Default: CONSISID_GATEWAY_CONFIG, or none."),
    ] = None,
    print_config: PrintConfig = False,
    as_json: Json = False,
) -> None:
    """Accept videos as durable jobs at /v1/videos, and serve the page, until SIGINT or SIGTERM.

    Any number of gateways may run on one database and one store of objects. Every flag is a setting, which a variable
    or a file can give as well, and there are more: docs/settings.md.
    """
    with needing("gateway"):
        from consisid_gateway.settings.settings import GatewaySettings
    flags = {
        "data": data,
        "database": database,
        "objects": objects,
        "host": host,
        "port": port,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
    }
    settings = chosen(GatewaySettings, flags, config, print_config=print_config, as_json=as_json)
    if settings is None:
        return
    with needing("gateway"):
        from consisid_gateway.serving.gateway import serve
    end_when_told()
    serve(settings, lambda url: emit(as_json, {"url": url}, f"page     {url}/"))
