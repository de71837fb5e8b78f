"""Names and shapes of the tensors in the published files of RetinaFace-R50, BiSeNet (facexlib) and EVA02-CLIP-L-336."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]

_RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
_RESNET18 = ((64, 2), (128, 2), (256, 2), (512, 2))
_PYRAMID = 256
_LABELS = 19


def aligner() -> Shapes:
    """`detection_Resnet50_Final.pth`: 27.4 M values; names have the prefix `module.` of data-parallel training."""
    shapes = _conv_norm("body.conv1", "body.bn1", 3, 64, 7)
    channels = 64
    for layer, (width, blocks) in enumerate(_RESNET50, start=1):
        for block in range(blocks):
            at = f"body.layer{layer}.{block}"
            shapes |= _conv_norm(f"{at}.conv1", f"{at}.bn1", channels, width, 1)
            shapes |= _conv_norm(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            shapes |= _conv_norm(f"{at}.conv3", f"{at}.bn3", width, 4 * width, 1)
            if block == 0:
                shapes |= _conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", channels, 4 * width, 1)
            channels = 4 * width
    for level, inputs in enumerate((512, 1024, 2048), start=1):
        shapes |= _conv_norm_pair(f"fpn.output{level}", inputs, _PYRAMID, 1)
    for level in (1, 2):
        shapes |= _conv_norm_pair(f"fpn.merge{level}", _PYRAMID, _PYRAMID, 3)
    half, quarter = _PYRAMID // 2, _PYRAMID // 4
    for level in (1, 2, 3):
        branches = {
            "conv3X3": (_PYRAMID, half),
            "conv5X5_1": (_PYRAMID, quarter),
            "conv5X5_2": (quarter, quarter),
            "conv7X7_2": (quarter, quarter),
            "conv7x7_3": (quarter, quarter),
        }
        for name, (inputs, outputs) in branches.items():
            shapes |= _conv_norm_pair(f"ssh{level}.{name}", inputs, outputs, 3)
    for head, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
        for level in range(3):
            at, outputs = f"{head}.{level}.conv1x1", 2 * values
            shapes |= {f"{at}.weight": (outputs, _PYRAMID, 1, 1), f"{at}.bias": (outputs,)}
    return {f"module.{name}": shape for name, shape in shapes.items()}


def parser() -> Shapes:
    """`parsing_bisenet.pth`: 13.3 M values, including the two auxiliary heads used in training."""
    shapes = _conv_norm("cp.resnet.conv1", "cp.resnet.bn1", 3, 64, 7)
    channels = 64
    for layer, (width, blocks) in enumerate(_RESNET18, start=1):
        for block in range(blocks):
            at = f"cp.resnet.layer{layer}.{block}"
            shapes |= _conv_norm(f"{at}.conv1", f"{at}.bn1", channels, width, 3)
            shapes |= _conv_norm(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            if block == 0 and channels != width:
                shapes |= _conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", channels, width, 1)
            channels = width
    for name, width in (("arm16", 256), ("arm32", 512)):
        shapes |= _conv_bn(f"cp.{name}.conv", width, 128, 3)
        shapes |= _conv_norm(f"cp.{name}.conv_atten", f"cp.{name}.bn_atten", 128, 128, 1)
    shapes |= _conv_bn("cp.conv_head32", 128, 128, 3) | _conv_bn("cp.conv_head16", 128, 128, 3)
    shapes |= _conv_bn("cp.conv_avg", 512, 128, 1) | _conv_bn("ffm.convblk", 256, 256, 1)
    shapes |= {"ffm.conv1.weight": (64, 256, 1, 1), "ffm.conv2.weight": (256, 64, 1, 1)}
    for name, inputs, width in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        shapes |= _conv_bn(f"{name}.conv", inputs, width, 3)
        shapes |= {f"{name}.conv_out.weight": (_LABELS, width, 1, 1)}
    return shapes


def clip() -> Shapes:
    """`EVA02_CLIP_L_336_psz14_s6B.pt`: the vision tower, 304 M values, and the largest tensor of the text tower."""
    width, hidden, grid, patch, head_dim = 1024, 2730, 24, 14, 64
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid * grid, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "rope.freqs_cos": (grid * grid, head_dim),
        "rope.freqs_sin": (grid * grid, head_dim),
    }
    for block in range(24):
        at = f"blocks.{block}"
        shapes |= _norm(f"{at}.norm1", width) | _norm(f"{at}.norm2", width)
        shapes |= {f"{at}.attn.{name}_proj.weight": (width, width) for name in "qkv"}
        shapes |= {f"{at}.attn.q_bias": (width,), f"{at}.attn.v_bias": (width,)}
        shapes |= {f"{at}.attn.rope.freqs_cos": (grid * grid, head_dim)}
        shapes |= {f"{at}.attn.rope.freqs_sin": (grid * grid, head_dim)}
        shapes |= _norm(f"{at}.attn.inner_attn_ln", width) | _linear(f"{at}.attn.proj", width, width)
        shapes |= _linear(f"{at}.mlp.w1", width, hidden) | _linear(f"{at}.mlp.w2", width, hidden)
        shapes |= _norm(f"{at}.mlp.ffn_ln", hidden) | _linear(f"{at}.mlp.w3", hidden, width)
    shapes |= _norm("norm", width) | _linear("head", width, 768)
    return {f"visual.{name}": shape for name, shape in shapes.items()} | {"text.token_embedding.weight": (49408, 768)}


def _conv_norm(conv: str, norm: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    statistics = {f"{norm}.running_mean": (outputs,), f"{norm}.running_var": (outputs,)}
    return {
        f"{conv}.weight": (outputs, inputs, kernel, kernel),
        **_norm(norm, outputs),
        **statistics,
        f"{norm}.num_batches_tracked": (),
    }


def _conv_norm_pair(at: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return _conv_norm(f"{at}.0", f"{at}.1", inputs, outputs, kernel)


def _conv_bn(at: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return _conv_norm(f"{at}.conv", f"{at}.bn", inputs, outputs, kernel)


def _norm(at: str, size: int) -> Shapes:
    return {f"{at}.weight": (size,), f"{at}.bias": (size,)}


def _linear(at: str, inputs: int, outputs: int) -> Shapes:
    return {f"{at}.weight": (outputs, inputs), f"{at}.bias": (outputs,)}
