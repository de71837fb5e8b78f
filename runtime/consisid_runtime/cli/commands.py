"""The runtime's own sub-commands; `serving` has the largest of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from consisid_runtime.cli.estimating import estimate
from consisid_runtime.cli.health import health
from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.progress import Display, watched
from consisid_runtime.cli.request_options import CA, OptionCommand, with_options
from consisid_runtime.cli.serving import Device, Memory, SignCert, SignKey, serve, signer_of
from consisid_runtime.cli.threads import Threads
from consisid_runtime.errors import InvalidOption, ServerError
from consisid_runtime.files.image_file import image_bytes
from consisid_runtime.memory.decide import read_setting
from consisid_runtime.options import Options, check_prompt
from consisid_runtime.video import Video, require_video_path

BundlePath = Annotated[Path, typer.Option("--bundle", help="Folder written by `consisid export`.")]
Image = Annotated[Path, typer.Option("--image", help="The portrait: JPEG, PNG, WebP, …")]
Prompt = Annotated[str, typer.Option("--prompt", help="What the video shows.")]
Similarity = Annotated[
    bool, typer.Option("--similarity", help="Also compare the faces of up to eight frames with the portrait.")
]
Out = Annotated[Path, typer.Option("--out", help="MP4 file to write.")]


def register(app: typer.Typer) -> None:
    """Add these sub-commands to `consisid`."""
    for command in (generate, request, estimate):
        app.command(cls=OptionCommand)(command)
    for command in (serve, health, inspect, doctor):
        app.command()(command)


@with_options
def generate(
    *,
    bundle: BundlePath,
    image: Image,
    prompt: Prompt,
    out: Out,
    device: Device = "auto",
    memory: Memory = None,
    threads: Threads = None,
    sign_cert: SignCert = None,
    sign_key: SignKey = None,
    similarity: Similarity = False,
    as_json: Json = False,
    options: Options,
) -> None:
    """Generate a video in this process."""
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.files.atomic import require_writable
    from consisid_runtime.pipeline import Pipeline
    from consisid_runtime.stages.face.image import read_photo

    require_video_path(out, image)
    require_writable(out)
    check_prompt(prompt)
    photo = image_bytes(image)
    read_photo(photo)
    signer = signer_of(sign_cert, sign_key)
    opened = Bundle.open(bundle, device=device, memory=None if memory is None else read_setting(memory))
    if opened.memory is not None:
        print(opened.memory, file=sys.stderr)
    opened.plan(options)  # refused now, and not when the networks are loaded: that takes minutes at full size
    with Display("generate") as display:
        display.update("opening the bundle", 0, 1)
        pipeline = Pipeline(opened)
        video = pipeline.generate(photo, prompt, options, similarity=similarity, progress=display.update)
    _save(video if signer is None else video.signed(signer), out, as_json)


@with_options
def request(
    *,
    url: Annotated[
        str, typer.Option("--url", help="grpc://host:port or http://host:port; with TLS grpcs://, https://")
    ],
    image: Image,
    prompt: Prompt,
    out: Out,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for the whole call, from resolving the name on.")
    ] = 600.0,
    ca: CA = None,
    similarity: Similarity = False,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="Before requests that are not urgent; one that runs pauses.")
    ] = False,
    as_json: Json = False,
    options: Options,
) -> None:
    """Request a video from a server, with the token in CONSISID_TOKEN where it wants one."""
    from consisid_runtime.client.client import Client
    from consisid_runtime.files.atomic import require_writable

    require_video_path(out, image)
    require_writable(out)
    with Client(url, timeout=timeout, ca=ca) as client, Display("request") as display:
        display.update("waiting for the server", 0, 1)
        video = watched(client, image, prompt, options, display, similarity=similarity, urgent=urgent)
    try:
        _save(video, out, as_json)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ServerError(
            f"{out} was written, but the server's info is not that of this version: {type(error).__name__} {error}"
        ) from error


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Folder written by `consisid export`; or a video, FILE.mp4.")],
    tier: Annotated[str | None, typer.Option("--tier", help="The tier of --steps. Default: the first.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="List the steps that a run of so many computes. Default: the tier's.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="With a video: PEM certificates of authorities whose signers are to be trusted."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a bundle and describe its content, and the steps that one of its tiers computes.

    With a video: what it says of its origin, and whether its content credentials are valid.
    """
    if bundle.suffix.lower() == ".mp4":
        from consisid_runtime.cli.origin import origin, origin_table

        said = origin(bundle, trust)
        emit(as_json, said, origin_table(said))
        return
    if trust is not None:
        raise InvalidOption(f"--trust {trust} is for a video, FILE.mp4; {bundle} is none")
    from consisid_runtime.cli.inspection import summary, table

    found = summary(bundle, Options(tier=tier, steps=steps))
    emit(as_json, found, table(found))


def doctor(as_json: Json = False) -> None:
    """List the installed packages, what each missing extra would add, and the GPU."""
    from consisid_runtime.cli.doctor import examine, table

    found = examine()
    emit(as_json, found, table(found))


def _save(video: Video, out: Path, as_json: bool) -> None:
    video.save(out)
    info = video.info
    chosen, face = info["options"], info["face"]
    lines = [f"{out}: {chosen['frames']} frames of {chosen['height']}×{chosen['width']}, seed {info['seed']}"]
    if "tier" in chosen:  # an older server has none
        computed = info["denoise"]["computed_steps"]
        lines.append(f"tier {chosen['tier']}, {computed} of {chosen['steps']} steps computed")
    lines += info.get("warnings", [])  # an older server sends none
    if face["faces"] > 1:
        lines.append(f"{face['faces']} faces found, face {face['face_index']} used (0 is the largest)")
    if alike := info.get("similarity"):
        lines.append(_alike(**alike))
    lines += [f"  {stage:10}{seconds:8.2f} s" for stage, seconds in info["seconds"].items()]
    emit(as_json, {"out": str(out), **info}, "\n".join(lines))


def _alike(*, mean: float | None, minimum: float | None, frames: int, frames_without_face: int, **_: object) -> str:
    seen = f"a face in {frames - frames_without_face} of {frames} frames"
    if mean is None or minimum is None:
        return f"similarity to the portrait: unknown, {seen}"
    return f"similarity to the portrait, by the model's own recogniser: {mean:.3f}, at least {minimum:.3f}, {seen}"
