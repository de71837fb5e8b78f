"""What `consisid inspect` tells about a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consisid_runtime.bundle import Bundle

LICENCE_NOTE = (
    "face/detector.onnx and face/recogniser.onnx come from the checkpoint's antelopev2 folder; "
    "InsightFace's own antelopev2 weights are for non-commercial research only"
)


def summary(path: Path) -> dict[str, Any]:
    """The manifest's facts, every file's digest verified first. Raises `BundleError` subclasses."""
    bundle = Bundle.open(path)
    bundle.verify()
    manifest = bundle.manifest
    size = bundle.geometry
    return {
        "bundle": str(path),
        "fingerprint": bundle.fingerprint,
        "engine": manifest["engine"],
        "precision": manifest["precision"],
        "video": {"frames": size.frames, "height": size.height, "width": size.width},
        "bytes": sum(record["bytes"] for record in manifest["files"].values()),
        "versions": manifest["versions"],
        "modules": {
            name: {
                **module["check"],
                **{side: _ports(module["signature"][side]) for side in ("inputs", "outputs")},
            }
            for name, module in manifest["modules"].items()
        },
        "licence": LICENCE_NOTE,
        "verified": True,
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    video = found["video"]
    lines = [
        f"{found['bundle']}: {found['engine']} {found['precision']}, {found['bytes'] / 2**20:.1f} MiB, "
        f"{video['frames']} frames of {video['height']}×{video['width']}; every digest verified",
        f"fingerprint {found['fingerprint']}",
        "made with " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "",
    ]
    for name, module in found["modules"].items():
        error = f"error {module['error']:.1e} (limit {module['limit']:g})" if "error" in module else module["reason"]
        lines.append(f"{name:18} {error}")
        lines += [f"    {side[:-1]:7} {port}" for side in ("inputs", "outputs") for port in module[side]]
    return "\n".join([*lines, "", found["licence"]])


def _ports(ports: list[dict[str, Any]]) -> list[str]:
    caches = [p for p in ports if "cache_" in p["name"]]
    shown = [f"{p['name']} {p['dtype']} [{', '.join(map(str, p['shape']))}]" for p in ports if p not in caches]
    return [*shown, f"{len(caches)} caches"] if caches else shown
