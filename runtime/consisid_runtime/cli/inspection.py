"""`consisid inspect`: the content of a bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import Bundle
from consisid_runtime.options import Options
from consisid_runtime.tiers import TIERS

LICENCE_NOTE = "as documented for the files of the official checkpoint; files of another origin may have other licences"


def summary(path: Path, options: Options | None = None) -> dict[str, Any]:
    """The facts in the manifest, after the digest of every file is verified, and the steps of a run with `options`.

    Raises subclasses of `BundleError`, `TierUnavailable` and `InvalidOption`.
    """
    bundle = Bundle.open(path)
    request = bundle.plan(options or Options())
    bundle.verify()
    manifest = bundle.manifest
    modules, run = manifest["modules"], manifest["denoising_run"]
    size = bundle.config.geometry
    return {
        "bundle": str(path),
        "fingerprint": bundle.fingerprint,
        "engine": ", ".join(dict.fromkeys(module["engine"] for module in modules.values())),
        "builder": manifest["options"]["engine"],
        "precision": manifest["options"]["precision"],
        "architectures": manifest["architectures"],
        "video": {"frames": size.frames, "height": size.height, "width": size.width},
        "bytes": sum(record["bytes"] for record in manifest["files"].values()),
        "versions": manifest["versions"],
        "modules": {
            name: {
                "engine": module["engine"],
                "precision": module["precision"],
                **module["check"],
                **{side: _ports(module["signature"][side]) for side in ("inputs", "outputs")},
            }
            for name, module in modules.items()
        },
        "denoising_run": {"steps": run["steps"], **run["check"]},
        "tiers": list(bundle.tiers.names),
        "run": {
            "tier": request.tier,
            "steps": request.steps,
            "computed": [step for step, computed in enumerate(request.computed) if computed],
            "guided_steps": request.guided_steps,
        },
        "world": manifest.get("world"),
        "licences": manifest["licences"],
        "verified": True,
    }


def table(found: dict[str, Any]) -> str:
    """The result of `summary` as text."""
    video = found["video"]
    targets = f" for {', '.join(found['architectures'])}" if found["architectures"] else ""
    lines = [
        f"{found['bundle']}: {found['engine']} {found['precision']}{targets}, {found['bytes'] / 2**20:.1f} MiB, "
        f"{video['frames']} frames of {video['height']}×{video['width']}; all digests verified",
        f"fingerprint {found['fingerprint']}",
        *([f"knows {found['world']}"] if found["world"] else []),
        "made with " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "",
    ]
    for name, module in found["modules"].items():
        lines.append(f"{name:18} {module['precision']}, {_check(module)}")
        lines += [f"    {side[:-1]:7} {port}" for side in ("inputs", "outputs") for port in module[side]]
    lines.append("errors: relative L2 distance to the network in float32 (docs/bundles.md)")
    lines.append(f"{found['denoising_run']['steps']} denoising steps: {_check(found['denoising_run'])}")
    lines += ["", *(f"tier {name}: {TIERS[name].meaning}" for name in found["tiers"]), _run(found["run"])]
    return "\n".join([*lines, "", f"licences of the weights, {LICENCE_NOTE}:", *_licences(found["licences"])])


def _run(run: dict[str, Any]) -> str:
    steps = ", ".join(map(str, run["computed"]))
    return (
        f"{run['steps']} steps in tier {run['tier']}: computes {len(run['computed'])} (from 0: {steps}), "
        f"with guidance in the first {run['guided_steps']}"
    )


def _check(module: dict[str, Any]) -> str:
    if module["kind"] == "numeric":
        return f"error {module['error']:.1e} (limit {module['limit']:.2g})"
    return f"error not measured: {module['reason']}"


def _licences(found: dict[str, dict[str, str]]) -> Iterable[str]:
    for file, licence in found.items():
        origin = f", {licence['source']}" if "source" in licence else ""
        yield f"  {file}: {licence['licence']}{origin}"


def _ports(ports: list[dict[str, Any]]) -> list[str]:
    caches = [p for p in ports if "cache_" in p["name"]]
    shown = [f"{p['name']} {p['dtype']} [{', '.join(map(str, p['shape']))}]" for p in ports if p not in caches]
    return [*shown, f"{len(caches)} caches"] if caches else shown
