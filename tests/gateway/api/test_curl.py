"""What docs/gateway.md shows for curl, line by line, and a download that is continued."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "gateway.md"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_the_lines_of_the_page(gateway: Any, http: Any, tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```sh\nURL=\S+\n(.+?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "portrait.png").write_bytes(gateway.portrait)
    script = f"set -euo pipefail\nURL={gateway.url}/v1/videos\n{shown}\necho\necho $ID"
    with gateway.worker():
        told = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "event: progress" in told.stdout and '"status":"completed"' in told.stdout
    assert (tmp_path / "video.mp4").read_bytes() == gateway.video
    assert (tmp_path / "sheet.jpg").read_bytes() == gateway.portrait + b"sheet"
    assert http.get(f"/v1/videos/{told.stdout.split()[-1]}").status_code == 404


def test_curl_goes_on_with_a_download(gateway: Any, http: Any, tmp_path: Path) -> None:
    video = gateway.create(http)["id"]
    gateway.finish(video)
    target = tmp_path / "video.mp4"
    target.write_bytes(gateway.video[:100_000])
    url = f"{gateway.url}/v1/videos/{video}/content"
    subprocess.run(["curl", "-sf", "-C", "-", "-o", target, url], check=True)
    assert target.read_bytes() == gateway.video
