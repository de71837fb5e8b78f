"""A complete model repository for a bundle: the Python backend's models, or its networks as native ones."""

from __future__ import annotations

import shlex
from pathlib import Path

from consisid_export.onnx.trace import OPSET
from consisid_export.repository.native import MODULES, native_model, write_native
from consisid_runtime.bundle import Bundle
from consisid_runtime.files.folders import replacing, require_place, target_folder
from consisid_runtime.files.ownership import write_marker
from consisid_runtime.serve.repository import ENSEMBLE_LAYOUT, SINGLE_LAYOUT, check_layout, models, write_repository

MARKER = "repository.json"

_PYTHON = """\
# Model repository of ConsisID, Python backend

{models} They need `consisid-runtime` where Triton server runs (`deploy/` of its sources has a container recipe).
Start it with

    CONSISID_BUNDLE={bundle} tritonserver --model-repository={out} --disable-auto-complete-config

`consisid serve` does the same on a server of its own, with addresses, limits and restricted APIs set.
"""

_MODELS = {
    ENSEMBLE_LAYOUT: """\
The ensemble `consisid` and the models that it runs one after the other, each in a process of its own;
`consisid_stream` calls the same ones and reports on the way.""",
    SINGLE_LAYOUT: """\
`consisid_stream`, whose process has the whole pipeline, and `consisid`, which passes its requests on to it.""",
}

_NATIVE = """\
# Model repository of ConsisID's networks, {backend} backend

Each model is one network with the tensors of the bundle's manifest; `-1` stands for what varies between requests.
Tokens, face alignment, positions and the denoising loop are the caller's: `consisid_runtime` has them, and for the
whole of it the Python backend (`consisid repository` without `--native`) is the way. Start it with

    tritonserver --model-repository={out} --disable-auto-complete-config

Needs {needs}.
The configurations are checked against Triton's own definition and the networks' tensors; no server has loaded them yet.
"""


def write_bundle_repository(
    bundle: str | Path, out: str | Path, *, native: bool = False, layout: str = ENSEMBLE_LAYOUT
) -> list[str]:
    """Write the repository to `out` atomically; one that is there is replaced.

    Args:
        native: text encoder, VAE and face networks as models of Triton server's own backends; their files are hard
            links into the bundle where the file system allows.
        layout: one of `LAYOUTS`, of the Python backend's models.

    Returns the models' names. Raises `InvalidOption`, `BundleError` subclasses, `OutputUnwritable`, and for `native`
    `ExportRefused` where no backend of Triton server's runs the bundle's engines.
    """
    check_layout(layout)
    opened, out = Bundle.open(bundle), target_folder(out)
    require_place(out, MARKER)
    opened.verify()
    with replacing(out, MARKER) as folder:
        if native:
            names = write_native(opened, folder)
            readme = _native_readme(opened, out)
        else:
            write_repository(folder, layout)
            names = models(layout)
            readme = _PYTHON.format(models=_MODELS[layout], bundle=_quoted(opened.path), out=_quoted(out))
        (folder / "README.md").write_text(readme, encoding="utf-8")
        write_marker(folder / MARKER, {"bundle": opened.fingerprint, "native": native, "models": names})
    return names


def _native_readme(bundle: Bundle, out: Path) -> str:
    module = MODULES[0]
    backend = native_model(bundle, module).backend
    built = bundle.manifest["modules"][module].get("tensorrt")
    wanted = f"{built['version']}, as its engines" if built else f"1.23 or later, the first to know opset {OPSET}"
    return _NATIVE.format(backend=backend, out=_quoted(out), needs=f"a Triton server with {backend} {wanted}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.resolve()))
