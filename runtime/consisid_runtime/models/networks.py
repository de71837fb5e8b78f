"""Which network each module is, which weights it takes, and the sizes that a checkpoint gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from consisid_runtime import signatures as table
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.models.blueprint import fill
from consisid_runtime.models.dit import DiT, Modulate, Prepare, Step
from consisid_runtime.models.dit_config import DiTConfig
from consisid_runtime.models.eva_clip import EvaVision
from consisid_runtime.models.local_extractor import PREFIX as EXTRACTOR
from consisid_runtime.models.local_extractor import LocalExtractor, LocalExtractorConfig
from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.models.t5 import T5Config, T5Encoder
from consisid_runtime.models.vae import DecoderFirst, DecoderNext, VAEEncoder
from consisid_runtime.models.vae_config import VAEConfig, decoder_caches
from consisid_runtime.signatures import Signature

CROP = 512
"""Edge of the aligned face, in pixels; fixed by the reference's alignment template."""

LEARNED_POSITIONS = "patch_embed.pos_embedding"

COMPONENTS = {
    "aligner": "aligner",
    "parser": "parser",
    "clip": "clip",
    "local_extractor": "transformer",
    "text_encoder": "text_encoder",
    "vae_encoder": "vae",
    "vae_decoder_first": "vae",
    "vae_decoder_next": "vae",
    "dit_prepare": "transformer",
    "dit_modulate": "transformer",
    "dit_step": "transformer",
}
"""Module → the component of the checkpoint that holds its weights."""


class Source(Protocol):
    """Where configurations and weights come from: a checkpoint folder, or a bundle for the torch engine."""

    def config(self, component: str) -> Mapping[str, Any]: ...

    def tensors(self, component: str) -> dict[str, Tensor]: ...


Loader = Callable[[Source, torch.dtype | None], nn.Module]


def load(name: str, source: Source, dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """One module with its weights, taking and returning its signature's ports in order.

    Args:
        dtype: of the weights, hence of the computation; the ports stay float32. None keeps each weight as it is stored:
            nothing is read or copied, and the module is not meant to be run.

    Raises `CheckpointInvalid` when the weights are not those that the configuration implies.
    """
    return NETWORKS[name].load(source, dtype)


def prefix(module: str) -> str:
    """What the safetensors file of its component writes before the names of a module's parameters."""
    return EXTRACTOR if module == "local_extractor" else ""


def signatures(source: Source) -> dict[str, Signature]:
    """Every exported module's signature in this checkpoint's sizes."""
    transformer = source.config("transformer")
    vae = VAEConfig.from_dict(source.config("vae"))
    with torch.device("meta"):
        clip = EvaVision(source.tensors("clip"))
    sizes = {
        **DiTConfig.from_dict(transformer).dims,
        **LocalExtractorConfig.from_dict(transformer).dims,
        **clip.sizes,
        "crop": CROP,
        "spatial": vae.spatial,
        "temporal": vae.temporal,
        "first_chunk": 2 * vae.temporal + 1,
    }
    return {network.name: network.bind(sizes) for network in table.networks(decoder_caches(vae))}


def skeletons(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[nn.Module, ...]]:
    """Networks without values whose state dicts together have a component's names and shapes."""
    vae = VAEConfig.from_dict(configs["vae"])
    with torch.device("meta"):
        return {
            "transformer": (
                DiT(DiTConfig.from_dict(configs["transformer"])),
                nn.ModuleDict(
                    {EXTRACTOR.rstrip("."): LocalExtractor(LocalExtractorConfig.from_dict(configs["transformer"]))}
                ),
            ),
            "vae": (VAEEncoder(vae), DecoderNext(vae)),
            "text_encoder": (T5Encoder(T5Config.from_dict(configs["text_encoder"])),),
        }


def _dit(part: Callable[[DiT], nn.Module]) -> Loader:
    def build(source: Source, dtype: torch.dtype | None) -> nn.Module:
        with torch.device("meta"):
            dit = DiT(DiTConfig.from_dict(source.config("transformer")))
        tensors = {name: t for name, t in source.tensors("transformer").items() if not name.startswith(EXTRACTOR)}
        return part(fill(dit, tensors, dtype)).eval()

    return build


def _local_extractor(source: Source, dtype: torch.dtype | None) -> nn.Module:
    with torch.device("meta"):
        network = LocalExtractor(LocalExtractorConfig.from_dict(source.config("transformer")))
    return fill(network, _under(EXTRACTOR, source.tensors("transformer")), dtype)


def _vae(kind: Callable[[VAEConfig], nn.Module], *prefixes: str) -> Loader:
    def build(source: Source, dtype: torch.dtype | None) -> nn.Module:
        with torch.device("meta"):
            network = kind(VAEConfig.from_dict(source.config("vae")))
        return fill(network, {n: t for n, t in source.tensors("vae").items() if n.startswith(prefixes)}, dtype)

    return build


def _text_encoder(source: Source, dtype: torch.dtype | None) -> nn.Module:
    with torch.device("meta"):
        network = T5Encoder(T5Config.from_dict(source.config("text_encoder")))
    tensors = {name: t for name, t in source.tensors("text_encoder").items() if name != "encoder.embed_tokens.weight"}
    return fill(network, tensors, dtype)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Network(NamedTuple):
    """A module's network.

    Attributes:
        definition: its class; whatever else defines it stands in the same file or is imported there.
        load: makes it, with its weights.
    """

    definition: type[nn.Module]
    load: Loader


NETWORKS = {
    "aligner": Network(RetinaFace, lambda source, dtype: RetinaFace.from_tensors(source.tensors("aligner"), dtype)),
    "parser": Network(BiSeNet, lambda source, dtype: BiSeNet.from_tensors(source.tensors("parser"), dtype)),
    "clip": Network(EvaVision, lambda source, dtype: EvaVision.from_tensors(source.tensors("clip"), dtype)),
    "local_extractor": Network(LocalExtractor, _local_extractor),
    "text_encoder": Network(T5Encoder, _text_encoder),
    "vae_encoder": Network(VAEEncoder, _vae(VAEEncoder, "encoder.", "quant_conv.")),
    "vae_decoder_first": Network(DecoderFirst, _vae(DecoderFirst, "decoder.", "post_quant_conv.")),
    "vae_decoder_next": Network(DecoderNext, _vae(DecoderNext, "decoder.", "post_quant_conv.")),
    "dit_prepare": Network(Prepare, _dit(Prepare)),
    "dit_modulate": Network(Modulate, _dit(Modulate)),
    "dit_step": Network(Step, _dit(Step)),
}
"""Module → its network."""
