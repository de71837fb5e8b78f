"""A Gradio app before ConsisID servers: a portrait and a prompt in, progress and previews, then the video.

pip install consisid-runtime gradio
CONSISID_SERVERS=grpc://127.0.0.1:8001 python docs/examples/gradio_app.py
"""

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from consisid_runtime import AsyncClient, Options, Video
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.events import QUEUE, Event

SERVERS = os.environ.get("CONSISID_SERVERS", "grpc://127.0.0.1:8001").split(",")


def line(event: Event) -> str:
    """What the app says of an event."""
    if event.stage == QUEUE:
        text = f"{event.position} before this one" if event.position else "next in line"
    else:
        text = f"{event.stage}: {event.done} of {event.total}" if event.total > 1 else event.stage
    return text if event.seconds_left is None else f"{text}, about {event.seconds_left:.0f} s left"


async def make_video(
    portrait: str | None, prompt: str, seed: float, steps: float
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Progress, preview and video. Gradio cancels the task that waits here, which frees the device within one step."""
    if portrait is None:
        raise gr.Error("Choose a portrait first.")
    # Gradio copies each file for the browser before it asks for the next one.
    with tempfile.TemporaryDirectory() as folder:
        try:
            options = Options(seed=int(seed), steps=int(steps))
            async with (
                AsyncClient(SERVERS, timeout=600) as client,
                client.stream(portrait, prompt, options, previews=True) as stream,
            ):
                async for item in stream:
                    if isinstance(item, Video):
                        yield "done", gr.skip(), written(item.mp4, folder, "video.mp4")
                    elif item.preview is None:
                        yield line(item), gr.skip(), gr.skip()
                    else:
                        yield line(item), written(item.preview, folder, "preview.jpg"), gr.skip()
        except ConsisIDError as error:
            raise gr.Error(f"{error} {error.remedy}", title=error.code, duration=None) from error


def written(content: bytes, folder: str, name: str) -> str:
    path = Path(folder, name)
    path.write_bytes(content)
    return str(path)


def app() -> gr.Blocks:
    with gr.Blocks(title="ConsisID") as blocks:
        gr.Markdown("# ConsisID\nA video of a person, from one portrait. Use one only of a person who agrees.")
        with gr.Row():
            with gr.Column():
                portrait = gr.Image(label="Portrait", type="filepath", sources=["upload", "clipboard"])
                prompt = gr.Textbox(label="Prompt", lines=3)
                seed = gr.Number(label="Seed", value=0, precision=0, minimum=0)
                steps = gr.Slider(label="Steps", value=50, minimum=1, maximum=100, step=1)
                start, cancel = gr.Button("Make the video", variant="primary"), gr.Button("Cancel")
            with gr.Column():
                status = gr.Textbox(label="Progress", interactive=False)
                preview = gr.Image(label="Preview", interactive=False)
                video = gr.Video(label="Video", autoplay=True, loop=True)
        making = start.click(make_video, [portrait, prompt, seed, steps], [status, preview, video])
        cancel.click(lambda: "cancelled", None, status, cancels=[making])
    return blocks


if __name__ == "__main__":
    app().launch()
