"""The whole product in one go: checkpoint, bundle, server, client, video, contact sheet."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from consisid_export.bundle import export_bundle
from consisid_export.checkpoint import Checkpoint
from consisid_export.nano import write_nano
from consisid_export.photograph import portrait
from consisid_runtime import Client, Options
from consisid_runtime.commands import watching
from consisid_runtime.progress import Display
from consisid_runtime.server import Server
from consisid_runtime.video import Video

PROMPT = "An astronaut smiles at the camera, a flag and a rocket behind her."
OPTIONS = Options(seed=7)
TILE = 192


def run_demo(folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """Everything from nothing: writes `demo.mp4` and `demo.png` into `out`, keeps checkpoint and bundle in `folder`."""
    begin = time.perf_counter()

    def done(text: str) -> None:
        nonlocal begin
        now = time.perf_counter()
        say(f"{now - begin:6.1f} s  {text}")
        begin = now

    checkpoint = folder / "nano"
    written = write_nano(checkpoint)
    done(f"{'wrote' if written else 'reused, still valid:'} checkpoint {checkpoint}")
    with Display("export") as display:
        exported = export_bundle(Checkpoint.open(checkpoint), folder / "bundle", progress=display.update)
    done(f"{'exported' if exported else 'reused, still valid:'} bundle {folder / 'bundle'}")
    with Server(folder / "bundle", grpc_port=0, http_port=0, metrics_port=0) as server:
        done(f"Triton server ready at {server.grpc_url}")
        photo = portrait()
        with watching(server.grpc_url), Client(server.grpc_url) as client:
            video = client.generate(photo, PROMPT, OPTIONS)
        done("video received")
    done("server stopped")
    video.save(out / "demo.mp4")
    contact_sheet(photo, PROMPT, video).save(out / "demo.png")
    say("stages on the server: " + ", ".join(f"{name} {took:.2f} s" for name, took in video.info["seconds"].items()))
    say(f"look at {out / 'demo.mp4'} and {out / 'demo.png'} (random weights: the frames are noise by design)")


def contact_sheet(photo: bytes, prompt: str, video: Video, *, tiles: int = 6) -> Image.Image:
    """The portrait, then `tiles` frames spread over the video, with the prompt below."""
    chosen = np.linspace(0, len(video.frames) - 1, tiles).round().astype(int)
    pictures = [Image.open(io.BytesIO(photo)).convert("RGB"), *(_picture(video.frames[i]) for i in chosen)]
    scaled = [picture.resize((round(picture.width * TILE / picture.height), TILE)) for picture in pictures]
    gap, line = 6, 22
    sheet = Image.new("RGB", (sum(p.width + gap for p in scaled) + gap, TILE + 2 * gap + line), "white")
    left = gap
    for picture in scaled:
        sheet.paste(picture, (left, gap))
        left += picture.width + gap
    labels = f"{prompt}   frames {', '.join(map(str, chosen))} of {len(video.frames)}"
    ImageDraw.Draw(sheet).text((gap, TILE + gap + 4), labels, fill="black")
    return sheet


def _picture(frame: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(frame)
