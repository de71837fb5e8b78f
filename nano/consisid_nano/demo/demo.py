"""Runs the demo: unpacks nano, exports it, serves it, requests videos and writes them with a contact sheet."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_nano.demo.contact_sheet import PersonVideos, PromptVideo, animation, contact_sheet
from consisid_nano.unpack import unpack_nano
from consisid_runtime import Client, Options
from consisid_runtime.cli.progress import Display
from consisid_runtime.files.atomic import require_folder, require_writable, write_file
from consisid_runtime.serve.server import Server

OPTIONS = Options(seed=7, steps=25, guidance=2.0)
"""Options of every request of the demo."""


def run_demo(folder: Path, out: Path, say: Callable[[str], None], *, people: int = 1, prompts: int = 1) -> None:
    """Request a video of each of the first held-out people with each of the first held-out prompts.

    Keeps checkpoint and bundle in `folder`. Writes `demo.png` and, for a single video, `demo.mp4`, for several
    `demo.gif` into `out`. Reports progress through `say`. Raises `MissingExtra` if consisid-nano has no checkpoint, and
    `OutputUnwritable` before any work if `out` cannot be written.
    """
    begin = time.perf_counter()

    def done(text: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        say(f"{now - begin:6.1f} s  {text}")
        begin = now

    require_folder(out)
    moving_picture = out / ("demo.gif" if people * prompts > 1 else "demo.mp4")
    for file in (out / "demo.png", moving_picture):
        require_writable(file)
    checkpoint = folder / "nano"
    written = unpack_nano(checkpoint)
    done(f"{'unpacked' if written else 'reused, still valid:'} checkpoint {checkpoint}")
    with Display("export") as display:
        exported = export_bundle(
            Checkpoint.open(checkpoint), folder / "bundle", engine="mixed", progress=display.update
        )
    done(f"{'exported' if exported else 'reused, still valid:'} bundle {folder / 'bundle'}")
    subjects = [PersonVideos(portrait(number)) for number in range(people)]
    write_file(folder / "portrait.png", subjects[0].portrait, parents=True)
    texts = [prompt(number) for number in range(prompts)]
    with Server(folder / "bundle", grpc_port=0, http_port=0, metrics_port=0) as server:
        done(f"Triton server ready at {server.grpc_url}")
        with Display("request") as display, Client(server.grpc_url) as client:
            for number, subject in enumerate(subjects):
                for text in texts:
                    display.update("waiting for the server", number * prompts + len(subject.videos), people * prompts)
                    video = client.generate(subject.portrait, text, OPTIONS, raw_frames=True)
                    subject.videos.append(PromptVideo(text, video.frames))
        done(f"{people * prompts} videos received" if people * prompts > 1 else "video received")
    done("server stopped")
    say("stages on the server: " + ", ".join(f"{name} {took:.2f} s" for name, took in video.info["seconds"].items()))
    write_file(out / "demo.png", _encoded(contact_sheet(subjects, _note())))
    if people * prompts > 1:
        first, *others = animation(subjects)
        moving = {"append_images": others, "duration": 1000 // OPTIONS.fps, "loop": 0, "optimize": False}
        write_file(moving_picture, _encoded(first, "GIF", save_all=True, **moving))
    else:
        video.save(moving_picture)
    say(f"look at {out / 'demo.png'} and {moving_picture}")
    say(f"for a page: consisid up --bundle {folder / 'bundle'}; a portrait for it: {folder / 'portrait.png'}")


def portrait(number: int) -> bytes:
    """Return a PNG, 512×512, of a held-out person."""
    from consisid_nano import world

    who = world.HELD_OUT_PEOPLE + number
    return _encoded(Image.fromarray(world.portrait(world.person(who), who).pixels))


def prompt(number: int) -> str:
    """Return a prompt for a held-out scene."""
    from consisid_nano import world

    where = world.HELD_OUT_PEOPLE + number
    return world.prompt(world.scene(where, held_out=True), where)


def _note() -> str:
    return (
        f"consisid-nano: the first people and scenes held out of its training; seed {OPTIONS.seed}, "
        f"{OPTIONS.steps} steps, guidance {OPTIONS.guidance:g}"
    )


def _encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
