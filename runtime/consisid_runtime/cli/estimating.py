"""`consisid estimate`: what a request should take, of a server or of a bundle that nothing has run on yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.request_options import CA, with_options
from consisid_runtime.cli.serving import Device
from consisid_runtime.errors import InvalidOption
from consisid_runtime.memory.plan import GIB
from consisid_runtime.options import Options

if TYPE_CHECKING:
    from consisid_runtime.stages.estimate import Estimate


@with_options
def estimate(
    *,
    url: Annotated[str | None, typer.Option("--url", help="A server, as for `consisid request`.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Or a bundle: what was counted of it, nothing having run.")
    ] = None,
    device: Device = "auto",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for the whole call.")] = 30.0,
    ca: CA = None,
    as_json: Json = False,
    options: Options,
) -> None:
    """Tell the seconds and the memory that a video should take, and how long it would wait now."""
    if (url is None) == (bundle is None):
        raise InvalidOption("estimate asks a server or a bundle: give either --url or --bundle")
    if url is not None:
        from consisid_runtime.client.client import Client

        with Client(url, timeout=timeout, ca=ca) as client:
            found = client.estimate(options)
    else:
        assert bundle is not None
        found = _of_bundle(bundle, device, options)
    emit(as_json, found.to_json(), table(found))


def table(found: Estimate) -> str:
    """Lines for people."""
    shown = [
        ("queue", _seconds(found.seconds_queued), "" if found.position is None else f"{found.position} before it"),
        ("work", _seconds(found.seconds), found.sources.get("seconds", "")),
        *((f"  {stage}", _seconds(seconds), "") for stage, seconds in found.stages.items()),
        ("host", _bytes(found.host_bytes), found.sources.get("host_bytes", "")),
        ("device", _bytes(found.device_bytes), found.sources.get("device_bytes", "")),
    ]
    return "\n".join(f"{name:10}{figure:>12}  {source}".rstrip() for name, figure, source in shown)


def _of_bundle(path: Path, device: str, options: Options) -> Estimate:
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.memory.peak import device_bytes
    from consisid_runtime.stages.estimate import Estimate

    opened = Bundle.open(path, device=device)
    return Estimate.of(None, None, device_bytes(opened, opened.plan(options), processes=False))


def _seconds(figure: float | None) -> str:
    return "unknown" if figure is None else f"{figure:.2f} s"


def _bytes(figure: int | None) -> str:
    return "unknown" if figure is None else f"{figure / GIB:.2f} GiB"
