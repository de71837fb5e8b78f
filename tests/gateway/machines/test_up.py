"""`consisid up` as a person starts it, with Triton server and a bundle."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from commands import Caller, Command
from postgresql import wait_until

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]


def test_a_killed_one_goes_on_with_its_job_when_it_is_started_again(
    untrained_bundle: Path, portrait: bytes, wanted: bytes, options: dict[str, int], tmp_path: Path
) -> None:
    def start() -> Command:
        data = tmp_path / "the data"
        command = ("up", "--bundle", str(untrained_bundle), "--data", str(data), "--port", "0")
        return Command(tmp_path / "log", *command, CONSISID_SERVE_LAYOUT="single")

    with start() as first:
        caller = Caller(first.told["url"])
        with urllib.request.urlopen(f"{first.told['url']}/") as page:
            assert page.status == 200 and b"<title>" in page.read()
        id = caller.ask(portrait, **options)
        caller.wait_for_progress(id)
        first.kill()
        wait_until(lambda: not first.left(), 10.0)
    with start() as second:
        assert Caller(second.told["url"]).video(id) == wanted
        assert second.stop() == 0
        assert second.left() == []
