"""Compiles what the first request needs before a server says that it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consisid_runtime.engines import place_of
from consisid_runtime.options import Options
from consisid_runtime.plan import plan
from consisid_runtime.signatures import MODULATION_BLOCK, Port

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from consisid_runtime.bundle import Bundle


_OWN = {"text_encoder": {"branches": 1}}
"""Sizes in which a module differs from the others: prompts are read one by one."""


def warm_up(bundle: Bundle) -> None:
    """Run every loaded module that computes on a GPU once, in the sizes of a request without options.

    A network's first call there compiles its kernels and loads those of libraries. Inputs are zeros, or what another
    module has just returned under that name; a CPU compiles nothing. Raises what the modules raise.
    """
    import torch

    dims = _sizes(bundle)
    returned: dict[str, Tensor] = {}
    for name, engine in bundle.loaded.items():
        place = torch.device(place_of(engine))
        if place.type != "cpu":
            ports = bundle.signature(name).bind(dims | _OWN.get(name, {})).inputs
            returned |= engine({port.name: _input(port, returned, place) for port in ports})
    if any(tensor.is_cuda for tensor in returned.values()):
        torch.cuda.synchronize()  # an error on the device belongs to loading


def _sizes(bundle: Bundle) -> dict[str, int]:
    """The symbols that vary between requests, and their numbers in a request without options."""
    from consisid_runtime.models.networks import CROP  # with PyTorch

    request, config = plan(Options(), bundle.config.geometry), bundle.config
    return {
        "branches": 1 + request.guided,
        "frames": request.latent_frames,
        "rows": request.rows,
        "columns": request.columns,
        "latent_height": request.height // config.vae.spatial,
        "latent_width": request.width // config.vae.spatial,
        "images": 1 + config.transformer.is_kps,
        "steps": MODULATION_BLOCK,
        "image_height": CROP,
        "image_width": CROP,
    }


def _input(port: Port, returned: dict[str, Tensor], place: torch.device) -> Tensor:
    import torch

    shape = tuple(int(size) for size in port.shape)
    known = returned.get(port.name)
    if known is not None and tuple(known.shape) == shape:
        return known
    dtypes = {"FP32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64}
    return torch.zeros(shape, dtype=dtypes[port.dtype], device=place)
