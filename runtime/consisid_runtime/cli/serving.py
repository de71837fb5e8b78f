"""`consisid serve`: a bundle on Triton server, behind the door or with the server's own ports."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.threads import Threads
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.memory.decide import read_setting

if TYPE_CHECKING:
    from consisid_runtime.provenance.credentials import Signer

Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.")]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="GiB of the GPU that a bundle of the torch engine may take: 12, 16, 24, 48, 80, or auto for what is free. "
        "Weights that do not fit wait in the host's memory. Default: all are on the GPU.",
    ),
]

SignCert = Annotated[
    Path | None,
    typer.Option("--sign-cert", help="PEM certificate, with its chain: content credentials (C2PA) in the video."),
]
SignKey = Annotated[
    Path | None, typer.Option("--sign-key", help="Its PEM key, unencrypted, readable for its owner alone.")
]


def _most(option: str, what: str) -> Any:
    return typer.Option(option, min=1, help=f"{what} that a request may ask for. Default: what the checkpoint can do.")


_METRICS_PORT = 8002
DIRECT = """\
--direct: callers reach Triton server itself, without the door. So there is
- no TLS, no token, and no limit of a client's connections, bytes or requests
- no end for Triton server 2.51's faults: one request of its own making ends the server, among others an HTTP body
  above about 4 MB without Content-Type: application/octet-stream, the parameter classification on the output info,
  a shape of 2^62, 300,000 nested objects, a million chunks
- no cancellation: a request whose caller left is computed to its end
- no common queue: 16 requests may wait for each model, and one may be refused after its denoising
- no restart: this command ends with the server
Use it on loopback, with one's own clients, or for comparison. SECURITY.md has the whole list."""


def serve(
    *,
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder written by `consisid export`.")],
    host: Annotated[
        str, typer.Option("--host", help="Address or name of this machine to bind; other hosts reach all but loopback.")
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="0 chooses a free port.")] = 8001,
    http_port: Annotated[
        int, typer.Option("--http-port", help="Also of /metrics, but for --direct. 0 chooses a free port.")
    ] = 8000,
    device: Device = "auto",
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="ensemble: a process for each stage. single: one for all. auto: ensemble where it fits on the GPU.",
        ),
    ] = "auto",
    memory: Memory = None,
    threads: Threads = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="PEM certificate, with its chain: HTTPS, and gRPC over TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="The certificate's PEM key, unencrypted.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the bearer token. Default: CONSISID_TOKEN, or none.")
    ] = None,
    sign_cert: SignCert = None,
    sign_key: SignKey = None,
    consent_hook: Annotated[
        str | None,
        typer.Option("--consent-hook", help="module:function that may refuse a request before it waits."),
    ] = None,
    watermark_hook: Annotated[
        str | None,
        typer.Option(
            "--watermark-hook",
            help="module:function that marks the frames of every video. Default: CONSISID_WATERMARK, or none.",
        ),
    ] = None,
    max_steps: Annotated[int | None, _most("--max-steps", "Denoising steps")] = None,
    max_frames: Annotated[int | None, _most("--max-frames", "Frames")] = None,
    max_pixels: Annotated[int | None, _most("--max-pixels", "Pixels of a frame, height times width,")] = None,
    trace: Annotated[
        str | None,
        typer.Option("--trace", help="URL of a collector of OpenTelemetry (OTLP over HTTP): spans of every request."),
    ] = None,
    direct: Annotated[
        bool,
        typer.Option("--direct", help="Open Triton server's own ports instead of the door's; says what that means."),
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="With --direct: 8002 by default, 0 chooses a free port.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve a bundle with NVIDIA's Triton server until SIGINT or SIGTERM; the log goes to standard error.

    Callers talk to a door before the server, which checks and queues requests, notices callers that leave, and starts
    the server again where it dies.
    """

    def end(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    settings: dict[str, Any] = {
        "device": device,
        "layout": layout,
        "memory": None if memory is None else read_setting(memory),
        "watermark": watermark_hook,
        "log": sys.stderr.buffer,
    }
    where: dict[str, Any] = {"host": host, "grpc_port": grpc_port, "http_port": http_port}
    limits: dict[str, Any] = {"steps": max_steps, "frames": max_frames, "pixels": max_pixels}
    if direct:
        if any(limits.values()):
            raise InvalidOption("--max-steps, --max-frames and --max-pixels are the door's; leave out --direct")
        if tls_cert or tls_key or token_file or sign_cert or sign_key or consent_hook or trace:
            raise InvalidOption(
                "Triton server's own ports have no TLS, no token, no signature, no consent and no traces; leave out "
                "--direct"
            )
        port = _METRICS_PORT if metrics_port is None else metrics_port
        _serve_directly(bundle, settings | where | {"metrics_port": port}, as_json)
        return
    if metrics_port is not None:
        raise InvalidOption("--metrics-port belongs to --direct; the door's metrics are on the HTTP port, at /metrics")
    try:
        from consisid_runtime.door.access import Access
        from consisid_runtime.door.door import Door
        from consisid_runtime.door.limits import Limits
        from consisid_runtime.door.records import writing
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the door needs {error.name}: pip install 'consisid-runtime[door]'; or serve with --direct"
        ) from error
    from consisid_runtime.provenance.hooks import load_hook
    from consisid_runtime.serve.server import Server

    where["access"] = Access.read(token_file, tls_cert, tls_key)
    where["signer"] = signer_of(sign_cert, sign_key)
    where["consent"] = None if consent_hook is None else load_hook(consent_hook)
    where["traces"] = trace
    server = Server(bundle, private=True, **settings)
    with writing(logging.StreamHandler(sys.stderr)), Door(server, limits=Limits(**limits), **where) as door:
        _show(door, as_json)
        door.wait()


def signer_of(certificate: Path | None, key: Path | None) -> Signer | None:
    """That of --sign-cert and --sign-key. Raises `InvalidOption` for one without the other, and as `Signer.read`."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidOption(
            f"signing needs both a certificate and its key: --sign-cert and --sign-key; got {certificate or key} alone"
        )
    from consisid_runtime.provenance.credentials import Signer

    return Signer.read(certificate, key)


def _serve_directly(bundle: Path, settings: dict[str, Any], as_json: bool) -> None:
    from consisid_runtime.serve.server import Server

    print(DIRECT, file=sys.stderr)
    with Server(bundle, **settings) as server:
        _show(server, as_json)
        server.wait()


def _show(served: Any, as_json: bool) -> None:
    urls = {"grpc": served.grpc_url, "http": served.http_url, "metrics": served.metrics_url}
    emit(as_json, urls, "\n".join(f"{name:8}{url}" for name, url in urls.items()))
