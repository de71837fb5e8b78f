"""The specification of the kernels equals what the networks compute."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from consisid_kernels import reference
from consisid_runtime.models import dit, vae
from consisid_runtime.models.configs.dit import DiTConfig
from consisid_runtime.models.configs.vae import VAEConfig

HEADS, WIDTH, TEXT, VIDEO, EPS = 3, 16, 5, 12, 1e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> bool:
    assert found.shape == wanted.shape
    return bool((found - wanted).norm() <= 1e-6 * wanted.norm())


def test_attention_equals_pytorch_s_also_in_parts() -> None:
    q, k, v = (normal(2, HEADS, TEXT + VIDEO, WIDTH) for _ in range(3))
    wanted = F.scaled_dot_product_attention(q, k, v)
    assert close(reference.joint_attention(q, k, v), wanted.transpose(1, 2))
    parts = [reference.partial_attention(q, k[:, :, s], v[:, :, s]) for s in (slice(0, 7), slice(7, None))]
    assert close(reference.merge_attention(*parts[0], *parts[1]), wanted)
    text, video = [x[:, :, :TEXT] for x in (q, k, v)], [x[:1, :, TEXT:] for x in (q, k, v)]
    joint = [torch.cat((a, b.expand(2, -1, -1, -1)), dim=2) for a, b in zip(text, video, strict=True)]
    found = reference.shared_joint_attention(tuple(text), tuple(video))  # type: ignore[arg-type]
    assert close(found, reference.joint_attention(*joint))


def block() -> dit.Block:
    config = DiTConfig.from_dict(
        {"num_attention_heads": HEADS, "attention_head_dim": WIDTH, "num_layers": 1, "cross_attn_interval": 1}
        | {
            "is_train_face": True,
            "use_rotary_positional_embeddings": True,
            "time_embed_dim": 8,
            "LFE_output_dim": 32,
            "in_channels": 32,
        }
    )
    network = dit.DiT(config).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    found = network.transformer_blocks[0]
    assert isinstance(found, dit.Block)
    return found


def test_a_transformer_block_is_composed_of_operators() -> None:
    layer = block()
    tokens, width = normal(2, TEXT + VIDEO, HEADS * WIDTH), HEADS * WIDTH
    modulation, step = normal(3, 2, 6, width), torch.tensor([1], dtype=torch.int32)
    angle = torch.rand(VIDEO, WIDTH // 2).repeat_interleave(2, 1)
    cos, sin = angle.cos(), angle.sin()
    padding = (0, 0, TEXT, 0)
    turn = (F.pad(cos, padding, value=1.0).double(), F.pad(dit.signed(sin), padding).double())
    wanted = torch.cat(layer(tokens[:, :TEXT], tokens[:, TEXT:], modulation[1], *turn), dim=1)

    def affine(module: nn.Module) -> tuple[Tensor, Tensor]:
        return module.weight, module.bias  # type: ignore[return-value]

    attention: dit.Attention = layer.attn1  # type: ignore[assignment]
    first, second = affine(layer.norm1["norm"]), affine(layer.norm2["norm"])
    projections = (attention.to_q, attention.to_k, attention.to_v)
    weight, bias = torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])
    normed = reference.modulated_norm(tokens, *first, modulation[:, 0], step, TEXT, EPS)
    norms = affine(attention.norm_q), affine(attention.norm_k)
    q, k, v = reference.qkv_epilogue(F.linear(normed, weight, bias), *norms, cos, sin, HEADS, 1e-6)
    mixed = attention.to_out[0](reference.joint_attention(q, k, v).flatten(2))
    tables = modulation[:, 0], *second, modulation[:, 1]
    tokens, normed = reference.gated_residual_norm(tokens, mixed, *tables, step, TEXT, EPS)
    inner, outer = layer.ff.net["0"]["proj"], layer.ff.net["2"]  # type: ignore[index,union-attr]
    hidden = reference.linear_gelu(normed, inner.weight, inner.bias)
    found = reference.gated_residual(tokens, outer(hidden), modulation[:, 1], step, TEXT)
    # The network rotates in float32, hence the tolerance of `close`.
    assert close(found, wanted)


def test_face_attention_equals_that_of_the_step() -> None:
    x, norm = normal(2, TEXT + VIDEO, 24), nn.LayerNorm(24).double()
    keys, values = normal(24, HEADS * 4), normal(HEADS * 4, 24)
    wanted = x.clone()
    wanted[:, TEXT:] += dit.face_attention(norm(x[:, TEXT:]), keys, values, HEADS)
    found = reference.face_attention(x, norm.weight, norm.bias, keys, values, HEADS, TEXT, 1e-5)
    assert close(found, wanted)


@pytest.mark.parametrize("first", [True, False])
def test_spatial_norm_equals_the_input_of_the_next_convolution(first: bool) -> None:
    config = VAEConfig.from_dict(
        {"block_out_channels": [8, 8], "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
        | {"temporal_compression_ratio": 2, "scaling_factor": 1.0}
        | {"down_block_types": ["CogVideoXDownBlock3D"] * 2, "up_block_types": ["CogVideoXUpBlock3D"] * 2}
    )
    norm = vae.SpatialNorm(8, config, time=2, space=2).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    latents = normal(1, 4, 3, 2, 3)
    frames = 5 if first else 6
    x, past = normal(1, 8, frames, 4, 6), normal(1, 8, 2, 4, 6)
    chunk = vae.Chunk(latents, () if first else (past,))
    wanted = chunk.with_past(F.silu(norm(x, chunk))).movedim(1, -1)
    scale, shift = (conv(latents).movedim(1, -1) for conv in (norm.conv_y, norm.conv_b))
    group = norm.norm_layer
    found = reference.spatial_norm_silu(
        x.movedim(1, -1),
        group.num_groups,
        group.weight,
        group.bias,
        scale,
        shift,
        (2, 2),
        None if first else past.movedim(1, -1),
        group.eps,
    )
    assert close(found, wanted)


def test_an_e4m3_layer_is_close_to_the_layer() -> None:
    x, weight, bias = normal(2, 7, 64), normal(48, 64), normal(48)
    x[1, 3] *= 1e6  # of its row alone
    (x8, x_scale), (weight8, weight_scale) = reference.quantise_rows(x), reference.quantise_rows(weight)
    assert x_scale.shape == (2, 7, 1) and weight_scale.shape == (48, 1)
    assert (x8.double().abs().amax(-1) == 448).all()
    found = reference.linear_float8(x8, x_scale, weight8, weight_scale.flatten(), bias, torch.float64)
    wanted = F.linear(x, weight, bias)
    errors = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    # E4M3 has three bits after the leading one: a relative error of at most 2^-4 in each factor.
    assert (errors < 2**-4).all() and (errors > 2**-8).all()
    without = reference.linear_float8(x8, x_scale, weight8, weight_scale.flatten(), None, torch.float64)
    assert close(without + bias, found)


def test_rows_are_quantised_after_gelu_without_rounding() -> None:
    x = normal(5, 64).bfloat16()
    found, scale = reference.quantise_rows(x, gelu=True)
    wanted = reference.quantise_rows(F.gelu(x.float(), approximate="tanh"))
    assert torch.equal(found.float(), wanted[0].float()) and torch.equal(scale, wanted[1])


class Divisions(TorchDispatchMode):
    """Records the divisors of divisions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[object] = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        if function is torch.ops.aten.div.Tensor:
            self.found.append(arguments[1])
        return function(*arguments, **(options or {}))


def test_scales_are_divided_by_tensors() -> None:
    """PyTorch on CUDA multiplies by the reciprocal of a divisor that is a Python number."""
    with Divisions() as divisions:
        reference.quantise_rows(normal(3, 64))
    assert len(divisions.found) == 2
    assert all(isinstance(divisor, Tensor) for divisor in divisions.found)


def test_a_step_is_selected_without_synchronisation() -> None:
    """Reading a number from the device would fail with fake tensors."""
    with FakeTensorMode():
        step = torch.ones(1, dtype=torch.int32)
        x, table, weight = torch.ones(2, 9, 16), torch.ones(3, 6, 16), torch.ones(16)
        assert reference.modulated_norm(x, weight, weight, table, step, TEXT, EPS).shape == x.shape
