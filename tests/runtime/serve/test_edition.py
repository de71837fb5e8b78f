"""Which bundle a server starts on, as its path changes; nothing is started here."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from consisid_runtime.bundle import MANIFEST, Bundle
from consisid_runtime.errors import BundleCorrupt, BundleMissing, InvalidOption
from consisid_runtime.files.ownership import manifest_digest
from consisid_runtime.serve import layout
from consisid_runtime.serve.server import Server, model_repository
from consisid_runtime.wire import BUNDLE_VARIABLE, VERIFIED_VARIABLE


@pytest.fixture
def bundles(torch_bundle_of: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """Name → folder of two bundles, and `link`, which leads to the first."""
    found = {}
    for name in ("first", "second"):
        found[name] = tmp_path / name
        shutil.copytree(torch_bundle_of(), found[name], copy_function=os.link)
        manifest = json.loads((found[name] / MANIFEST).read_text()) | {"world": name}
        (found[name] / MANIFEST).unlink()
        (found[name] / MANIFEST).write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    found["link"] = tmp_path / "link"
    found["link"].symlink_to("first")
    return found


def served(server: Server) -> tuple[str | None, Path]:
    assert server.edition.bundle is not None
    return server.edition.bundle.world, server.edition.folders[BUNDLE_VARIABLE]


def prepared(bundles: dict[str, Path], **settings: str) -> Server:
    """On the first bundle, by the link, which then leads to the second."""
    server = Server(bundles["link"], **settings)  # type: ignore[arg-type]
    server.prepare()
    assert served(server) == ("first", bundles["first"])
    bundles["link"].unlink()
    bundles["link"].symlink_to("second")
    return server


def test_a_link_is_followed_once(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server = prepared(bundles)
    verified: list[Bundle] = []
    monkeypatch.setattr(Bundle, "verify", lambda bundle: verified.append(bundle))
    server.prepare()
    assert served(server) == ("first", bundles["first"]) and not verified, "as after a crash"
    found = server.read()
    assert served(server) == ("first", bundles["first"])
    assert found.bundle is not None and (found.fingerprint, verified) == (found.bundle.fingerprint, [found.bundle])
    assert not found.is_same(server.edition) and server.read().is_same(found)
    server.edition = found
    assert served(server) == ("second", bundles["second"])


def test_what_was_verified_is_handed_on(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server = prepared(bundles)
    monkeypatch.setattr("consisid_runtime.files.identity.SETTLED", 0)
    found = server.read()
    handed = json.loads(found.environment[VERIFIED_VARIABLE])
    assert found.bundle is not None and handed["bundle"] == found.fingerprint != server.edition.fingerprint
    assert handed["files"].keys() == found.bundle.manifest["files"].keys()


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_bundle_that_is_gone_is_read_anew(bundles: dict[str, Path], change: str) -> None:
    server = prepared(bundles)
    shutil.rmtree(bundles["first"])
    if change == "replaced":
        bundles["link"].unlink()
        bundles["link"].symlink_to("first")
        bundles["second"].rename(bundles["first"])
    server.prepare()
    assert served(server) == ("second", bundles["first" if change == "replaced" else "second"])
    shutil.rmtree(served(server)[1])
    with pytest.raises(BundleMissing):
        server.prepare()


def test_a_bad_bundle_changes_nothing(bundles: dict[str, Path]) -> None:
    server = prepared(bundles)
    victim = max((path for path in bundles["second"].glob("*.safetensors")), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    before = server.edition
    with pytest.raises(BundleCorrupt, match=victim.name):
        server.read()
    assert server.edition is before


def test_the_layout_is_chosen_when_the_device_is_free(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("consisid_runtime.serve.server.choose", lambda chosen, *_: asked.append(chosen) or "single")
    server = prepared(bundles)
    assert not asked and server.edition.repository is None
    for _ in range(2):
        files = server._repository()
        assert isinstance(files, dict) and "face/config.pbtxt" not in files
    assert asked == ["auto"]


def test_a_layout_that_needs_no_device_is_chosen_before(bundles: dict[str, Path]) -> None:
    assert prepared(bundles, layout="ensemble").edition.repository == model_repository()
    server = Server(bundles["second"], memory=24)
    with pytest.raises(InvalidOption, match="memory is for"):
        server.read()
    assert layout.asks_device("auto", None) and not layout.asks_device("auto", 24)
