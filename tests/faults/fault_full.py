"""A disk or shared memory that is full: before a server starts, while it serves, and for its clients' commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fault_disks import command, fill, seen_by, use_up_names
from fault_kills import leave_in_a_step
from fault_requests import CODES, VIDEO, WAYS, Known, over_grpc, over_grpc_stream, over_http, wrong
from fault_server import FaultServer
from fault_threads import Later, wait_for

Start = Callable[..., FaultServer]
_MEMORY = Path("/dev/shm")
_CONSISID = "from consisid_runtime.cli.main import main; main()"
_ON_FULL_DISK = """
disk=$1; shift
cat /dev/zero > "$disk/fill" 2> /dev/null
"$@"; status=$?
rm "$disk/fill"
test -z "$(ls -A "$disk")" || status=77
exit $status
"""


def no_room_to_start(start: Start, disk: Path, size: str, known: Sequence[Known]) -> dict[str, Any]:
    """The command serves in spite of it, or says so with a code and leaves nothing."""
    server = start(temporary=disk / "temporary", command=command((f"size={size}", disk / "temporary")))
    return _serves_or_refuses(server, known, "OUTPUT_UNWRITABLE")


def no_memory_to_start(start: Start, size: str, known: Sequence[Known]) -> dict[str, Any]:
    """The Python backend has little room for its regions of shared memory."""
    return _serves_or_refuses(start(command=command((f"size={size}", _MEMORY))), known, "SERVER_ERROR")


def _serves_or_refuses(server: FaultServer, known: Sequence[Known], code: str) -> dict[str, Any]:
    server.start()
    assert server.process is not None
    try:
        if server.grpc_url:
            answer = over_grpc(server, known[0])
            assert wrong(known[0], answer, known, CODES) is None
            found = {"serves": answer.end}
        else:
            assert server.printed["error"]["code"] == code, server.printed
            found = {"code": code, "exit_status": server.process.wait(60)}
    finally:
        server.stop()
    assert server.left() == []
    return found


def disk_fills(start: Start, disk: Path, known: Sequence[Known], *, names: bool) -> dict[str, Any]:
    """Videos are made and callers who leave free the device; what died starts again once there is room."""
    options = "size=1m,nr_inodes=60" if names else "size=1m"
    server = start(temporary=disk / "temporary", command=command((options, disk / "temporary")))
    with server:
        folder = seen_by(server.pid("launcher"), disk / "temporary")
        filled = use_up_names(folder) if names else [fill(folder)]
        _videos(server, known)
        leave_in_a_step(server, known)
        assert wrong(known[0], over_grpc(server, known[0]), known) is None
        assert server.complete(), "the server was not started again: its models heard that nobody waited"
        os.kill(server.pid("decode"), signal.SIGKILL)
        waiting = Later(lambda: over_http(server, known[1]))
        time.sleep(4)
        for file in filled:
            file.unlink()
        assert wrong(known[1], waiting.result(), known, ("SERVER_DIED",)) is None
        assert wrong(known[2], over_grpc(server, known[2]), known) is None
        wait_for(server.complete, 10, "every process is there again")
        assert server.stop() == 0
    assert server.left() == []
    failed = len(re.findall(r"start \d of 5 failed", server.log.read_text()))
    return {"videos": len(WAYS) + 3, "failed_starts": failed}


def log_fills(start: Start, disk: Path, known: Sequence[Known]) -> dict[str, Any]:
    """Standard error is a file on a full disk: lines are lost, and nothing else."""
    mounts = command(("size=64k", disk / "small"))
    into = ["sh", "-c", 'log=$1; shift; exec "$@" 2>> "$log"', "sh", str(disk / "small" / "lines")]
    with start(command=[*mounts, *into]) as server:
        fill(seen_by(server.pid("launcher"), disk / "small"))
        _videos(server, known)
        before = server.look()["tritonserver"]
        os.kill(server.pid("text"), signal.SIGKILL)
        wait_for(lambda: server.look().get("tritonserver", before) != before, 20, "the next server starts")
        _videos(server, known)
        assert server.complete()
        status = server.stop()
    assert server.left() == []
    assert status == 0
    return {"videos": 2 * len(WAYS), "exit_status": status}


def memory_fills(start: Start, known: Sequence[Known], room: int) -> dict[str, Any]:
    """Each request gets its video or a typed error; with room again, its video. `room`: bytes left free."""
    with start(command=command(("size=64m", _MEMORY))) as server:
        folder = seen_by(server.pid("launcher"), _MEMORY)
        filled = fill(folder)
        os.truncate(filled, filled.stat().st_size - room)
        large = [one.with_(raw_frames=True) for one in known]
        answers = [ask(server, one) for one in (*known[:3], *large[:3]) for ask in (over_grpc_stream, over_http)]
        ends = sorted({answer.end for answer in answers})
        assert {*ends} <= CODES | {VIDEO}, [answer for answer in answers if answer.end not in CODES | {VIDEO}]
        filled.unlink()
        wait_for(lambda: server.complete() and server.ready(), 60, "every process is there")
        _videos(server, known)
        assert server.stop() == 0
    assert server.left() == []
    return {"room_bytes": room, "ends": ends}


def commands_fill(bundle: Path, disk: Path, server: FaultServer, known: Sequence[Known]) -> dict[str, Any]:
    """`consisid request` and `consisid repository` on a full disk: exit status 5, and no half of a file."""
    image, out = disk / "portrait", disk / "full"
    image.write_bytes(known[0].image)
    asked = ["--image", str(image), "--prompt", "a man", "--steps", "2", "--frames", "9", "--url", server.grpc_url]
    found = {}
    for words in (["request", *asked], ["repository", str(bundle)]):
        wrapped = [*command(("size=16k", out)), "sh", "-c", _ON_FULL_DISK, "sh", str(out)]
        ended = subprocess.run(
            [*wrapped, sys.executable, "-c", _CONSISID, *words, "--out", str(out / "made.mp4"), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ended.returncode == 5, ended
        found[words[0]] = json.loads(ended.stdout)["error"]["code"]
    assert found == {"request": "OUTPUT_UNWRITABLE", "repository": "OUTPUT_UNWRITABLE"}
    return found


def _videos(server: FaultServer, known: Sequence[Known]) -> None:
    """One in each way, two at a time."""
    works = [
        (asked, Later(lambda ask=ask, asked=asked: ask(server, asked)))  # type: ignore[misc]
        for asked, ask in zip(known, WAYS.values(), strict=False)
    ]
    found = [wrong(asked, work.result(), known) for asked, work in works]
    assert not any(found), found
