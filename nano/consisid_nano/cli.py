"""The commands of this distribution: nano, demo. They need consisid-runtime with its extras (`consisid-nano[demo]`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consisid_runtime.cli.output import Json, emit


def register(app: typer.Typer) -> None:
    """Add this package's commands to `consisid`."""
    app.command()(nano)
    app.command()(demo)


def nano(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    random: Annotated[bool, typer.Option("--random", help="Untrained instead, made here: noise, of any seed.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random weights; 0 if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write a small, complete checkpoint of ConsisID's architecture, under 20 MB.

    The trained one comes from the distribution consisid-nano: it knows drawn people, and no photographs.
    """
    from consisid_nano.unpack import unpack_nano
    from consisid_nano.untrained.write import write_untrained
    from consisid_runtime.errors import InvalidOption

    if seed is not None and not random:
        raise InvalidOption(
            f"seed is of random weights, got {seed} for the trained ones; add --random, or leave it out"
        )
    written = write_untrained(folder, seed=seed or 0) if random else unpack_nano(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    emit(
        as_json,
        {"checkpoint": str(folder), "weights": "random" if random else "trained", "written": written, "bytes": size},
        f"{folder}: {'written' if written else 'already there and intact'}, {size / 2**20:.1f} MiB",
    )


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Keeps the checkpoint and the bundle.")] = Path("build/demo"),
    out: Annotated[Path, typer.Option("--out", help="Gets demo.png, and demo.mp4 or demo.gif.")] = Path(),
    people: Annotated[int, typer.Option("--people", min=1, max=10, help="How many people.")] = 1,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=10, help="What each is asked to do.")] = 1,
) -> None:
    """Do everything once with the trained nano checkpoint: export, serve, request, look.

    People and prompts are held out of its training. Several videos become a grid, demo.gif, in place of demo.mp4.
    """
    from consisid_nano.demo.demo import run_demo

    run_demo(folder, out, typer.echo, people=people, prompts=prompts)
