"""Adds the commands `nano` and `demo` to `consisid`. They need the extra `consisid-nano[demo]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from consisid_runtime.cli.output import Json, emit
from consisid_runtime.cli.threads import Threads

if TYPE_CHECKING:
    from consisid_nano.untrained.configs import Size


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    app.command()(nano)
    app.command()(demo)


def nano(
    folder: Annotated[Path, typer.Argument(help="Folder to write the checkpoint into.")],
    random: Annotated[bool, typer.Option("--random", help="Write an untrained checkpoint instead.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the untrained checkpoint's weights; default 0.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Of the untrained checkpoint: small, 128x192 (default), or mid, 192x224 and wider."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a small, complete checkpoint of ConsisID's architecture, under 20 MB (mid: 211 MB).

    By default nano, which was trained on drawn people and does not work with photographs.
    """
    from consisid_nano.unpack import unpack_nano
    from consisid_runtime.errors import InvalidOption

    for flag, given in (("--seed", seed), ("--size", size)):
        if given is not None and not random:
            raise InvalidOption(
                f"{flag} applies to an untrained checkpoint only, got {given} without --random; add --random or omit "
                f"{flag}"
            )
    if random:
        from consisid_nano.untrained.write import write_untrained

        written = write_untrained(folder, seed=seed or 0, size=cast("Size", size or "small"))
    else:
        written = unpack_nano(folder)
    taken = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    emit(
        as_json,
        {"checkpoint": str(folder), "weights": "random" if random else "trained", "written": written, "bytes": taken},
        f"{folder}: {'written' if written else 'already there and intact'}, {taken / 2**20:.1f} MiB",
    )


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Folder for the checkpoint and the bundle, which are reused.")
    ] = Path("build/demo"),
    out: Annotated[Path, typer.Option("--out", help="Folder for demo.png and demo.mp4 or demo.gif.")] = Path(),
    people: Annotated[int, typer.Option("--people", min=1, max=10, help="Number of people.")] = 1,
    prompts: Annotated[int, typer.Option("--prompts", min=1, max=10, help="Number of prompts for each person.")] = 1,
    threads: Threads = None,
) -> None:
    """Export nano, serve it, request videos and show them.

    People and prompts are held out of training. Several videos are written as a grid, demo.gif, instead of demo.mp4.
    """
    from consisid_nano.demo.demo import run_demo

    run_demo(folder, out, typer.echo, people=people, prompts=prompts)
