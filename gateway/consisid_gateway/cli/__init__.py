"""Adds the commands `up`, `gateway`, `worker` and `keys` to `consisid`. They need the extra `gateway`.

up         everything on one machine
gateway    the HTTP interface and the page
worker     drives the server beside it
keys       API keys: make, list, revoke
resolving  what the commands share: their settings, and what is missing for them
"""

from __future__ import annotations

import typer

from consisid_gateway.cli.gateway import gateway
from consisid_gateway.cli.keys import keys
from consisid_gateway.cli.up import up
from consisid_gateway.cli.worker import worker


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (up, gateway, worker):
        app.command()(command)
    app.add_typer(keys, name="keys")
