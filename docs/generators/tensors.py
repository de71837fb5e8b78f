"""The table of tensors: every module's inputs and outputs at ConsisID-preview's sizes."""

from __future__ import annotations

from consisid_runtime import signatures as table
from consisid_runtime.models.configs.vae import VAEConfig, decoder_caches
from consisid_runtime.signatures import Port, Signature
from consisid_runtime.stages.table import STAGES

PREVIEW = {
    "blocks": 42,
    "channels": 16,
    "clip_dim": 1024,
    "clip_out": 768,
    "clip_size": 336,
    "clip_tokens": 577,
    "crop": 512,
    "dim": 3072,
    "embedding_dim": 512,
    "face_dim": 2048,
    "face_layers": 21,
    "face_slots": 512,
    "face_tokens": 32,
    "first_chunk": 9,
    "head_dim": 64,
    "identity_dim": 1280,
    "patch": 2,
    "scales": 5,
    "spatial": 8,
    "temporal": 4,
    "text_dim": 4096,
    "text_length": 226,
}
"""ConsisID-preview's sizes (its configuration files; diffusers' defaults where they are silent)."""

_VAE = {"block_out_channels": [128, 256, 256, 512], "latent_channels": 16, "layers_per_block": 3}
_VAE_REST = {"norm_num_groups": 32, "temporal_compression_ratio": 4, "scaling_factor": 0.7}


def tensor_table() -> str:
    """Markdown: one row a module, its inputs and outputs at ConsisID-preview's sizes."""
    caches = decoder_caches(VAEConfig.from_dict({**_VAE, **_VAE_REST}))
    rows = [
        _row(signature.bind(PREVIEW))
        for signature in (*table.networks(caches), *(stage.signature for stage in STAGES), table.ENSEMBLE)
    ]
    return "\n".join(["| module | inputs | outputs |", "|---|---|---|", *rows])


def _row(signature: Signature) -> str:
    return f"| {signature.name} | {_ports(signature.inputs)} | {_ports(signature.outputs)} |"


def _ports(ports: tuple[Port, ...]) -> str:
    caches = [port for port in ports if "cache_" in port.name]
    shown = [f"`{p.name}` {p.dtype} [{', '.join(map(str, p.shape))}]" for p in ports if p not in caches]
    return "<br>".join([*shown, f"{len(caches)} caches"] if caches else shown)
