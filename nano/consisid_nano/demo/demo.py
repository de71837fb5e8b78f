"""The whole product in one go: checkpoint, bundle, server, client, video, contact sheet."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_nano.demo.contact_sheet import Part, Take, animation, contact_sheet
from consisid_nano.unpack import unpack_nano
from consisid_runtime import Client, Options
from consisid_runtime.cli.progress import Display
from consisid_runtime.files.atomic import require_folder, write_file
from consisid_runtime.serve.server import Server

OPTIONS = Options(seed=7, steps=25, guidance=2.0)
"""What the trained nano checkpoint is asked with."""


def run_demo(folder: Path, out: Path, say: Callable[[str], None], *, people: int = 1, prompts: int = 1) -> None:
    """Everything from nothing: every one of the first held-out people does what every prompt says.

    Keeps checkpoint and bundle in `folder`, writes `demo.png` into `out`; beside it `demo.mp4` of a single video, or
    `demo.gif` of several. Raises `MissingExtra` without consisid-nano, `OutputUnwritable` before anything is done.
    """
    begin = time.perf_counter()

    def done(text: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        say(f"{now - begin:6.1f} s  {text}")
        begin = now

    require_folder(out)
    checkpoint = folder / "nano"
    written = unpack_nano(checkpoint)
    done(f"{'unpacked' if written else 'reused, still valid:'} checkpoint {checkpoint}")
    with Display("export") as display:
        exported = export_bundle(Checkpoint.open(checkpoint), folder / "bundle", progress=display.update)
    done(f"{'exported' if exported else 'reused, still valid:'} bundle {folder / 'bundle'}")
    cast = [Part(portrait(number)) for number in range(people)]
    texts = [prompt(number) for number in range(prompts)]
    with Server(folder / "bundle", grpc_port=0, http_port=0, metrics_port=0) as server:
        done(f"Triton server ready at {server.grpc_url}")
        with Display("request") as display, Client(server.grpc_url) as client:
            for number, part in enumerate(cast):
                for text in texts:
                    display.update("waiting for the server", number * prompts + len(part.takes), people * prompts)
                    video = client.generate(part.portrait, text, OPTIONS, raw_frames=True)
                    part.takes.append(Take(text, video.frames))
        done(f"{people * prompts} videos received" if people * prompts > 1 else "video received")
    done("server stopped")
    say("stages on the server: " + ", ".join(f"{name} {took:.2f} s" for name, took in video.info["seconds"].items()))
    write_file(out / "demo.png", _encoded(contact_sheet(cast, _note())))
    if people * prompts > 1:
        first, *others = animation(cast)
        moving = {"append_images": others, "duration": 1000 // OPTIONS.fps, "loop": 0, "optimize": False}
        write_file(out / "demo.gif", _encoded(first, "GIF", save_all=True, **moving))
    else:
        video.save(out / "demo.mp4")
    say(f"look at {out / 'demo.png'} and {out / ('demo.gif' if people * prompts > 1 else 'demo.mp4')}")


def portrait(number: int) -> bytes:
    """A PNG, 512×512, of a drawn person whom nothing was trained on."""
    from consisid_nano import world

    who = world.HELD_OUT_PEOPLE + number
    return _encoded(Image.fromarray(world.portrait(world.person(who), who).pixels))


def prompt(number: int) -> str:
    """A sentence for a combination of place, clothes, expression, motion and speech that nothing was trained on."""
    from consisid_nano import world

    where = world.HELD_OUT_PEOPLE + number
    return world.prompt(world.scene(where, held_out=True), where)


def _note() -> str:
    return (
        f"consisid-nano: people and scenes held out of its training, the first ones there are; seed {OPTIONS.seed}, "
        f"{OPTIONS.steps} steps, guidance {OPTIONS.guidance:g}"
    )


def _encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
