"""Which network each module is, which weights it takes, and the sizes that a checkpoint gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from consisid_runtime import signatures as table
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.models.blueprint import fill
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.models.configs.vae import VAEConfig, decoder_caches
from consisid_runtime.models.dit import DiT, Modulate, Prepare, Step
from consisid_runtime.models.eva_clip import EvaVision
from consisid_runtime.models.local_extractor import PREFIX as EXTRACTOR
from consisid_runtime.models.local_extractor import LocalExtractor
from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.models.t5 import T5Encoder
from consisid_runtime.models.vae import DecoderFirst, DecoderNext
from consisid_runtime.models.vae_encoder import VAEEncoder
from consisid_runtime.signatures import Signature

CROP = 512
"""Edge of the aligned face, in pixels; fixed by the reference's alignment template."""

LEARNED_POSITIONS = "patch_embed.pos_embedding"

_VAE_PARTS = ("encoder.", "quant_conv.", "decoder.", "post_quant_conv.")

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


_KSERVE = {torch.float32: "FP32", torch.float16: "FP16", torch.bfloat16: "BF16"}

SAME = {"vae_decoder_first": "vae_decoder_next", "vae_decoder_next": "vae_decoder_first"}
"""Module → another with the same parameters, whose network answers for it as well: without caches, and with them."""


class WeightReader(Protocol):
    """Configuration and weights of a checkpoint: its folder, or a bundle for the torch engine."""

    @property
    def config(self) -> CheckpointConfig: ...

    def tensors(self, component: str) -> dict[str, Tensor]: ...


Loader = Callable[[WeightReader, torch.dtype | None], nn.Module]


def load(name: str, checkpoint: WeightReader, dtype: torch.dtype | None = torch.float32) -> nn.Module:
    """One module with its weights, taking and returning its signature's ports in order.

    Args:
        dtype: of the weights, hence of the computation, and of the decoder's caches; all other ports stay float32. None
            keeps each weight as it is stored: nothing is read or copied, and the module is not meant to be run.

    Raises `CheckpointInvalid` when the weights are not those that the configuration implies.
    """
    return NETWORKS[name].load(checkpoint, dtype)


def prefix(module: str) -> str:
    """Prefix of a module's parameter names in the safetensors file of its component."""
    return EXTRACTOR if module == "local_extractor" else ""


def signatures(checkpoint: WeightReader, dtype: torch.dtype = torch.float32) -> dict[str, Signature]:
    """Every exported module's signature in this checkpoint's sizes; `dtype` is that of the VAE decoder's weights."""
    config, vae = checkpoint.config, checkpoint.config.vae
    with torch.device("meta"):
        clip = EvaVision(checkpoint.tensors("clip"))
    sizes = {
        **config.transformer.dims,
        **config.local_extractor.dims,
        **clip.sizes,
        "crop": CROP,
        "spatial": vae.spatial,
        "temporal": vae.temporal,
        "first_chunk": 2 * vae.temporal + 1,
    }
    return {network.name: network.bind(sizes) for network in table.networks(decoder_caches(vae), _KSERVE[dtype])}


def skeletons(config: CheckpointConfig) -> dict[str, tuple[nn.Module, ...]]:
    """Networks without values whose state dicts together have a component's names and shapes."""
    with torch.device("meta"):
        return {
            "transformer": (
                DiT(config.transformer),
                nn.ModuleDict({EXTRACTOR.rstrip("."): LocalExtractor(config.local_extractor)}),
            ),
            "vae": (VAEEncoder(config.vae), DecoderNext(config.vae)),
            "text_encoder": (T5Encoder(config.text_encoder),),
        }


def _dit(part: Callable[[DiT], nn.Module]) -> Loader:
    def build(checkpoint: WeightReader, dtype: torch.dtype | None) -> nn.Module:
        with torch.device("meta"):
            dit = DiT(checkpoint.config.transformer)
        tensors = {name: t for name, t in checkpoint.tensors("transformer").items() if not name.startswith(EXTRACTOR)}
        return part(fill(dit, tensors, dtype)).eval()

    return build


def _local_extractor(checkpoint: WeightReader, dtype: torch.dtype | None) -> nn.Module:
    with torch.device("meta"):
        network = LocalExtractor(checkpoint.config.local_extractor)
    return fill(network, _under(EXTRACTOR, checkpoint.tensors("transformer")), dtype)


def _vae(kind: Callable[[VAEConfig], nn.Module], *prefixes: str) -> Loader:
    def build(checkpoint: WeightReader, dtype: torch.dtype | None) -> nn.Module:
        with torch.device("meta"):
            network = kind(checkpoint.config.vae)
        tensors = checkpoint.tensors("vae")
        if unknown := [name for name in tensors if not name.startswith(_VAE_PARTS)]:
            raise CheckpointInvalid(f"{unknown[0]} is not part of the VAE")
        return fill(network, {n: t for n, t in tensors.items() if n.startswith(prefixes)}, dtype)

    return build


def _text_encoder(checkpoint: WeightReader, dtype: torch.dtype | None) -> nn.Module:
    with torch.device("meta"):
        network = T5Encoder(checkpoint.config.text_encoder)
    tensors = {
        name: t for name, t in checkpoint.tensors("text_encoder").items() if name != "encoder.embed_tokens.weight"
    }
    return fill(network, tensors, dtype)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Network(NamedTuple):
    """A module's network.

    Attributes:
        definition: its class; everything else that defines it is in the same file or imported there.
        load: makes it, with its weights.
    """

    definition: type[nn.Module]
    load: Loader


NETWORKS = {
    "aligner": Network(RetinaFace, lambda found, dtype: RetinaFace.from_tensors(found.tensors("aligner"), dtype)),
    "parser": Network(BiSeNet, lambda found, dtype: BiSeNet.from_tensors(found.tensors("parser"), dtype)),
    "clip": Network(EvaVision, lambda found, dtype: EvaVision.from_tensors(found.tensors("clip"), dtype)),
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
