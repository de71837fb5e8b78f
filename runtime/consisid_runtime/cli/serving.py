"""`consisid serve`: a bundle on Triton server, behind the door or with the server's own ports."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer

from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.signals import end_when_told, reload_when_told
from consisid_runtime.cli.threads import Threads
from consisid_runtime.cpus import use_threads
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.serve.logs.unblocked import Unblocked

if TYPE_CHECKING:
    from consisid_runtime.provenance.credentials import Signer
    from consisid_runtime.settings.settings import Settings

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
  a shape of 2^62, 300,000 nested objects, a million chunks; now and then a stream that its caller cancels is enough
- no cancellation: a request whose caller left is computed to its end
- no common queue: 16 requests may wait for each model, and one may be refused after its denoising
- no restart, and no reload: this command ends with the server, and at SIGHUP
Use it on loopback, with one's own clients, or for comparison. SECURITY.md has the whole list."""


def serve(
    *,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder written by `consisid export`; has no default.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="Address or name of this machine to bind; other hosts reach all but loopback. Default: 127.0.0.1.",
        ),
    ] = None,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", help="0 chooses a free port. Default: 8001.")] = None,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", help="Also of /metrics, but for --direct. 0 chooses a free port. Default: 8000."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:N or auto. Default: auto.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="ensemble: a process for each stage. single: one for all. auto: ensemble where it fits on the GPU. "
            "Default: auto.",
        ),
    ] = None,
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
    trusted_proxy: Annotated[
        str | None,
        typer.Option(
            "--trusted-proxy",
            help="Addresses and networks, with commas, of reverse proxies whose X-Forwarded-For says who calls. "
            "Default: none is believed.",
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
        bool | None,
        typer.Option("--direct", help="Open Triton server's own ports instead of the door's; says what that means."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="With --direct: 8002 by default, 0 chooses a free port.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings. Default: CONSISID_SERVE_CONFIG, or none."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings as such a file, and where each came from; end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve a bundle with NVIDIA's Triton server until SIGINT or SIGTERM; the log goes to standard error.

    Callers talk to a door before the server, which checks and queues requests, notices callers that leave, and starts
    the server again where it dies. At SIGHUP it reads the bundle's path again, and serves what is there once the
    requests that run have ended; those that wait go on waiting. Every flag is a setting, which a variable or a file can
    give as well, and there are more: docs/settings.md.
    """
    flags = {
        "bundle": bundle,
        "host": host,
        "grpc_port": grpc_port,
        "http_port": http_port,
        "device": device,
        "layout": layout,
        "memory": memory,
        "threads": threads,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "token_file": token_file,
        "trusted_proxy": trusted_proxy,
        "sign_cert": sign_cert,
        "sign_key": sign_key,
        "consent_hook": consent_hook,
        "watermark_hook": watermark_hook,
        "max_steps": max_steps,
        "max_frames": max_frames,
        "max_pixels": max_pixels,
        "trace": trace,
        "direct": direct,
        "metrics_port": metrics_port,
    }
    try:
        from consisid_runtime.settings.resolve import resolve
        from consisid_runtime.settings.settings import Settings
        from consisid_runtime.settings.text import to_data, to_toml
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the settings of a server need {error.name}: pip install 'consisid-runtime[door]'"
        ) from error
    resolved = resolve(Settings, {name: value for name, value in flags.items() if value is not None}, config)
    if print_config:
        emit(as_json, to_data(resolved), "" if as_json else to_toml(resolved))
    else:
        with Unblocked(sys.stderr.buffer) as log:
            _serve(resolved.settings, log, as_json)


def _serve(settings: Settings, log: Unblocked, as_json: bool) -> None:
    from consisid_runtime.serve.server import Server

    if settings.bundle is None:
        raise InvalidOption("there is no bundle to serve; name its folder: --bundle, or bundle in the file of --config")
    end_when_told()
    if settings.threads is not None:
        use_threads(settings.threads)
    served: dict[str, Any] = {
        "device": settings.device,
        "layout": settings.layout,
        "memory": settings.memory,
        "watermark": settings.watermark_hook,
        "faces_kept": settings.faces_kept,
        "faces_seconds": settings.faces_seconds,
        "ready_timeout": settings.ready_seconds,
        "log": log,
    }
    where: dict[str, Any] = {
        "host": settings.host,
        "grpc_port": settings.grpc_port,
        "http_port": settings.http_port,
    }
    if settings.direct:
        port = _METRICS_PORT if settings.metrics_port is None else settings.metrics_port
        print(DIRECT, file=sys.stderr)
        with Server(settings.bundle, metrics_port=port, **served, **where) as server:
            _show(server, as_json)
            server.wait()
        return
    try:
        from consisid_runtime.door.access import Access
        from consisid_runtime.door.door import Door
        from consisid_runtime.door.records import writing
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the door needs {error.name}: pip install 'consisid-runtime[door]'; or serve with --direct"
        ) from error
    from consisid_runtime.provenance.hooks import load_hook

    where["access"] = Access.read(settings.token_file, settings.tls_cert, settings.tls_key, settings.trusted_proxy)
    where["signer"] = signer_of(settings.sign_cert, settings.sign_key)
    where["consent"] = None if settings.consent_hook is None else load_hook(settings.consent_hook)
    where["traces"] = settings.trace
    server = Server(settings.bundle, private=True, **served)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    door = Door(server, limits=settings.limits(), **where)
    reload_when_told(door.reload)
    lines = io.TextIOWrapper(cast("IO[bytes]", log), "utf-8", write_through=True)
    with writing(logging.StreamHandler(lines), level), door:
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


def _show(served: Any, as_json: bool) -> None:
    urls = {"grpc": served.grpc_url, "http": served.http_url, "metrics": served.metrics_url}
    emit(as_json, urls, "\n".join(f"{name:8}{url}" for name, url in urls.items()))
