"""The processes of a server and what they leave behind: files, memory, orphans, what other users can read."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.client.client import Client
from consisid_runtime.errors import ConsisIDError, InvalidOption, OutputUnwritable, ServerError, ServerUnreachable
from consisid_runtime.serve import confined, guard
from consisid_runtime.serve.server import Server
from consisid_runtime.serve.tritonserver import TritonServer


def family(root: int) -> set[int]:
    """Process ids of `root` and all below it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pids: set[int]) -> set[int]:
    return {
        pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    }


@pytest.mark.server
def test_stopping_leaves_nothing(tiny_repository: Path) -> None:
    before = family(os.getpid())
    temporary, memory = set(Path("/tmp").glob("consisid-server-*")), set(Path("/dev/shm").glob("consisid-*"))
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        started = family(os.getpid()) - before
        assert len(alive(started)) >= 4, "guard, server and two models"
    assert not alive(started)
    assert set(Path("/tmp").glob("consisid-server-*")) <= temporary
    assert set(Path("/dev/shm").glob("consisid-*")) <= memory
    server.stop()


@pytest.mark.server
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_nothing(tiny_repository: Path, how: signal.Signals) -> None:
    code = (
        "import sys, time; from pathlib import Path; from consisid_runtime.serve.tritonserver import TritonServer\n"
        "server = TritonServer(Path(sys.argv[1])).start(); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_repository)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
        below = family(parent.pid) - {parent.pid}
        assert len(alive(below)) >= 4
        parent.send_signal(how)
    deadline = time.monotonic() + 30
    while alive(below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(below)


@pytest.mark.server
def test_a_server_that_lost_a_model_is_ended(tiny_repository: Path) -> None:
    with TritonServer(tiny_repository, ready_timeout=60) as server, Client(server.grpc_url, timeout=30) as client:
        stubs = {pid for pid in family(os.getpid()) if "python_backend_stub" in command_of(pid)}
        started = {pid for pid in stubs if f"{server.grpc_url.rpartition(':')[2]}" in command_of(parent_of(pid))}
        assert len(started) == 3, "a process for each model that computes"
        folder = Path(command_of(parent_of(parent_of(min(started)))).split("\0")[4])
        assert (folder / guard.WATCHING).exists(), "a model that ends now is not noticed"
        os.kill(min(started), signal.SIGKILL)
        with pytest.raises(ServerError, match="the process of a model ended"):
            server.wait()
        with pytest.raises(ServerUnreachable):
            client.generate(b"image", "a man")


@pytest.mark.server
def test_a_server_that_dies_is_reported(tiny_repository: Path) -> None:
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        (binary,) = (
            pid for pid in family(os.getpid()) if Path(f"/proc/{pid}/comm").read_text().strip() == "tritonserver"
            and str(server.grpc_url.rpartition(":")[2]) in Path(f"/proc/{pid}/cmdline").read_text()
        )  # fmt: skip
        os.kill(binary, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"Triton server was ended by signal 9 \(SIGKILL\); the kernel"):
            server.wait()


def regions(memory: str) -> dict[str, int]:
    """Name → mode of the files under /dev/shm with this prefix."""
    found = {}
    for path in Path("/dev/shm").glob(f"{memory}*"):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = stat.S_IMODE(path.stat().st_mode)
    return found


@pytest.mark.server
def test_no_other_user_can_read_a_server_at_any_time(tiny_repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    server = TritonServer(tiny_repository, ready_timeout=60, log=log, threads=3)
    seen: set[int] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.001):
            seen.update(regions(server._leaves[1] or "nothing").values())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with server:
            folder, memory = server._leaves
            before = regions(memory)
            assert len(before) == 3, "one for each instance of a model"
            asking = threading.Thread(target=ask, args=(server, bytes(3_000_000), "sleep 1 unmistakable"))
            asking.start()
            time.sleep(0.5)
            ours = family(os.getpid())
            assert not [pid for pid in ours if "unmistakable" in command_of(pid)]
            assert not [pid for pid in ours if stat.S_IMODE(Path(f"/proc/{pid}/environ").stat().st_mode) & 0o077]
            asking.join()
            sizes = [path.stat().st_size for path in Path("/dev/shm").glob(f"{memory}*")]
            assert regions(memory).keys() == before.keys() and max(sizes) > 3_000_000, "a region grows in place"
            assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
            stubs = [pid for pid in ours if memory in command_of(pid) and "python_backend_stub" in command_of(pid)]
            assert all(b"OMP_NUM_THREADS=3\0" in Path(f"/proc/{pid}/environ").read_bytes() for pid in stubs)
            (binary,) = {parent_of(pid) for pid in stubs}
            assert len(os.listdir(f"/proc/{binary}/task")) < 60, "threads that do not multiply with the models"
    finally:
        ended.set()
        watcher.join()
    assert seen == {0o600}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "failed to stop" not in log.read_text()


def ask(server: TritonServer, image: bytes, prompt: str) -> None:
    with contextlib.suppress(ConsisIDError), Client(server.grpc_url, timeout=60) as client:
        client.generate(image, prompt)


@pytest.mark.server
def test_a_killed_guard_leaves_nothing(tiny_repository: Path) -> None:
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        folder, memory = server._leaves
        below = {pid for pid in family(os.getpid()) if memory in command_of(pid)}
        (warden,) = (pid for pid in below if guard.__file__ in command_of(pid))
        threading.Thread(target=ask, args=(server, b"x", "sleep 20")).start()
        time.sleep(0.5)
        os.kill(warden, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"guards Triton server was ended by signal 9 \(SIGKILL\)"):
            server.wait()
        deadline = time.monotonic() + 10
        while alive(below) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(below), "the model that was computing included"
    assert not Path(folder).exists() and not regions(memory)


@pytest.mark.server
def test_a_guard_that_stands_still_keeps_nobody_from_the_end(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_GRACE", "_LATE"):
        monkeypatch.setattr(f"consisid_runtime.serve.tritonserver.{name}", 0.2)
    with TritonServer(tiny_repository, ready_timeout=60) as server:
        memory = server._leaves[1]
        below = {pid for pid in family(os.getpid()) if memory in command_of(pid)}
        (warden,) = (pid for pid in below if guard.__file__ in command_of(pid))
        os.kill(warden, signal.SIGSTOP)
        server.stop()
        deadline = time.monotonic() + 10
        while alive(below) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(below)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, port: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("consisid_runtime.serve.private.PrivatePort.make", full)
    with pytest.raises(OutputUnwritable, match=f"cannot be written in {tmp_path}: .*No space left on device"):
        TritonServer({}, private=True).start()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("end", "status"), [("kill -SEGV $$", 139), ("kill -KILL $$", 137), ("exit 3", 3)])
def test_the_guard_passes_on_how_its_command_ended(tmp_path: Path, end: str, status: int) -> None:
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-I", "-S", guard.__file__, str(tmp_path / "folder"), "consisid-none-", "1"]
    with subprocess.Popen([*command, "/bin/sh", "-c", end], stdin=subprocess.PIPE) as started:
        assert started.wait(20) == status
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (139, "Triton server was ended by signal 11 (SIGSEGV)"),
        (134, "Triton server was ended by signal 6 (SIGABRT)"),
        (137, "Triton server was ended by signal 9 (SIGKILL); the kernel does this when memory runs out"),
        (-15, "the process that guards Triton server was ended by signal 15 (SIGTERM), and the server with it"),
        (255, "Triton server was ended by signal 127"),
        (1, "Triton server ended with exit status 1"),
    ],
)
def test_a_signal_is_named(status: int, message: str) -> None:
    assert guard.ended(status) == message


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guard, "_TEMPORARY", tmp_path)
    monkeypatch.setattr(guard, "_children", lambda pid: {1})
    return tmp_path


@pytest.mark.parametrize(
    ("made", "filled", "gone"),
    [(["python_env_b"], [], True), (["python_env_b", "python_env_c"], [], False), (["python_env_b"], ["x"], False)],
    ids=["its own", "two servers started", "not empty"],
)
def test_the_backends_folder_is_removed_if_it_is_surely_ours(
    temporary: Path, made: list[str], filled: list[str], gone: bool
) -> None:
    (temporary / "python_env_a").mkdir()
    (temporary / "server").mkdir()
    found = guard._BackendFolder(temporary / "server" / "python_env")
    for name in made:
        (temporary / name).mkdir()
    found.look(1)
    (temporary / "python_env_d").mkdir()
    found.look(1)
    for name in filled:
        (temporary / made[0] / name).touch()
    guard.clean(str(temporary / "server"), "consisid-none-")
    left = {path.name for path in temporary.iterdir()}
    assert left == {"python_env_a", "python_env_d", *([] if gone else made)}


def test_what_a_killed_guard_left_running_is_ended() -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    straggler, another = (subprocess.Popen([*sleep, name]) for name in ("consisid-ab12-cd", "consisid-34"))
    try:
        deadline = time.monotonic() + 10
        while straggler.poll() is None and time.monotonic() < deadline:  # until it has its own command line
            guard.end_stragglers("consisid-ab12")
            time.sleep(0.01)
        assert straggler.wait(1) == -signal.SIGKILL and another.poll() is None
    finally:
        for process in (straggler, another):
            process.kill()
            process.wait()


def test_a_folder_of_another_user_is_not_ours(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = guard._BackendFolder(temporary / "link")
    (temporary / "python_env_a").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    found.look(1)
    assert not found.known


TOUCH = "import os, sys; fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644); os.fchmod(fd, 0o644)"


@pytest.mark.parametrize(("filtered", "mode"), [(True, 0o600), (False, 0o644)])
def test_fchmod_cannot_open_a_file_to_others(tmp_path: Path, filtered: bool, mode: int) -> None:
    subprocess.run(
        [sys.executable, "-c", TOUCH, str(tmp_path / "file")],
        preexec_fn=lambda: confined.confine(os.getppid(), filtered=filtered),
        check=True,
    )
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize(
    ("user", "driver", "helper", "harmless"),
    [(0, False, True, True), (1, True, True, True), (1, False, False, True), (1, False, True, False)],
)
def test_the_filter_leaves_the_drivers_helper_its_rights(
    monkeypatch: pytest.MonkeyPatch, user: int, driver: bool, helper: bool, harmless: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os.path, "exists", lambda path: driver)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-modprobe" if helper else None)
    assert confined.may_filter() == harmless


@pytest.mark.server
@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_ipv6_address_is_served(tiny_repository: Path, host: str) -> None:
    with TritonServer(tiny_repository, host=host, ready_timeout=60) as server:
        assert server.grpc_url.startswith("grpc://[::1]:")
        for url in (f"{server.http_url}/v2/health/ready", server.metrics_url):
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.status == 200
        with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=10).ready


def test_a_foreign_host_is_refused_before_the_bundle_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"192\.0\.2\.1"):
        Server(tmp_path / "nowhere", host="192.0.2.1").start()
