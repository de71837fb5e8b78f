# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""GroupNorm (Wu & He 2018), scale and shift by the latents (SpatialNorm of MoVQ, Zheng et al. 2022), SiLU, causal past.

    y = ((x − mean_g)·rstd_g·w + b)·scale + shift        out = past ++ y / (1 + e^(−y))

Bound by memory. A group has up to 2.5·10⁷ values, spread over x and too many for caches, so x is read twice:

    1. _channel_statistics  mean and Σ(x − mean)² of each channel over a chunk of positions, by Welford's recurrence
    2. _group_statistics    mean and rstd of each group from all chunks, merged as by Chan, Golub & LeVeque (1983)
    3. _spatial_norm_silu   the formulas above, into a buffer that begins with the past

No step subtracts large sums, and the order of every sum is fixed. The first kernel goes from the first frame to the
last and the third from the last to the first, so that it finds in L2 what the first read last. A program of the third
keeps the scale and shift of a few columns in registers for all rows and frames that share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant

_PAST = tl.constexpr(2)


@triton.jit(do_not_specialize=["positions", "chunk"])
def _channel_statistics(
    partial, x, positions, chunk,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A program reads `chunk` positions, a multiple of ROWS.

    partial [2, chunks, CHANNELS]: mean, sum of squared deviations.
    Each of ROWS × CHANNELS lanes has its own statistics, so that iterations need no reductions.
    """
    first = tl.program_id(0).to(tl.int64) * chunk
    length = tl.minimum(positions - first, chunk).to(tl.int32)
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    inside = (channel < CHANNELS)[None, :]
    x += first * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
    mean = tl.zeros([ROWS, BLOCK], tl.float32)
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    full = length // ROWS
    for step in tl.range(full, num_stages=STAGES):
        value = tl.load(x + step * (ROWS * CHANNELS), mask=inside, other=0.0).to(tl.float32)
        deviation = value - mean
        mean += deviation * (1.0 / (step + 1))
        squares += deviation * (value - mean)
    valid = row < length - full * ROWS
    if full * ROWS < length:
        offsets = x + full * (ROWS * CHANNELS)
        value = tl.load(offsets, mask=inside & valid[:, None], other=0.0).to(tl.float32)
        deviation = tl.where(valid[:, None], value - mean, 0.0)
        mean += deviation * (1.0 / (full + 1))
        squares += deviation * (value - mean)

    count = (full + valid.to(tl.int32)).to(tl.float32)[:, None]
    centre = tl.sum(mean * tl.div_rn(count, length.to(tl.float32)), 0)
    deviation = mean - centre[None, :]
    partial += tl.program_id(0).to(tl.int64) * CHANNELS + channel
    tl.store(partial, centre, mask=channel < CHANNELS)
    partial += tl.num_programs(0).to(tl.int64) * CHANNELS
    tl.store(partial, tl.sum(squares + deviation * deviation * count, 0), mask=channel < CHANNELS)


@triton.jit(do_not_specialize=["positions", "chunk", "chunks"])
def _group_statistics(
    statistics, partial, positions, chunk, chunks, eps,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program computes a group of SIZE channels. statistics [2, groups]: mean, 1 / √(variance + eps)."""
    group = tl.program_id(0)
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    inside = (channel < SIZE)[None, :]
    partial += group * SIZE + channel[None, :]
    mean = tl.zeros([ROWS, BLOCK], tl.float32)
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    count = tl.zeros([ROWS], tl.float32)
    for start in range(0, chunks, ROWS):
        index = (start + row).to(tl.int64)
        mask = (index < chunks)[:, None] & inside
        offsets = partial + index[:, None] * CHANNELS
        deviation = tl.load(offsets, mask=mask, other=0.0) - mean
        chunk_squares = tl.load(offsets + chunks.to(tl.int64) * CHANNELS, mask=mask, other=0.0)
        chunk_count = tl.maximum(tl.minimum(positions - index * chunk, chunk), 0).to(tl.float32)
        previous_count = count
        count += chunk_count
        share = tl.div_rn(chunk_count, tl.maximum(count, 1.0))[:, None]
        mean += deviation * share
        squares += chunk_squares + deviation * deviation * (previous_count[:, None] * share)

    total = positions.to(tl.float32) * SIZE
    centre = tl.sum(tl.sum(mean * tl.div_rn(count, total)[:, None], 1), 0)
    deviation = tl.where(inside, mean - centre, 0.0)
    variance = tl.div_rn(tl.sum(tl.sum(squares + deviation * deviation * count[:, None], 1), 0), total)
    tl.store(statistics + group, centre)
    tl.store(statistics + tl.num_programs(0) + group, tl.div_rn(1.0, tl.sqrt_rn(variance + eps)))


@triton.jit(do_not_specialize=["height", "width"])
def _spatial_norm_silu(
    out, x, statistics, weight, bias, scale, shift, past, height, width,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, TIME: tl.constexpr, SPACE: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A program computes ROWS columns of all rows and frames that share a row of latents, or copies those of the past.

    If past is None, it is computed from x's first frame.
    """
    latent = tl.num_programs(2) - 1 - tl.program_id(2)
    latent_row = tl.num_programs(1) - 1 - tl.program_id(1)
    column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    valid = channel < CHANNELS
    inside = (column < width)[:, None] & valid[None, :]
    column_offsets = column[:, None] * CHANNELS + channel[None, :]
    top = latent_row * SPACE
    row_size = width.to(tl.int64) * CHANNELS
    frame_size = row_size * height

    if past is None:
        # The first latent frame belongs to one frame and, here, to the two of the past.
        begin = tl.where(latent == 0, 0, (latent - 1) * TIME + 1 + _PAST)
        frames = tl.where(latent == 0, 1 + _PAST, TIME)
    else:
        latent -= 1
        begin = latent * TIME + _PAST
        frames = tl.where(latent < 0, 0, TIME)
        if latent < 0:
            for step in tl.range(_PAST * SPACE, num_stages=STAGES):
                offsets = (step // SPACE) * frame_size + (top + step % SPACE) * row_size + column_offsets
                tl.store(out + offsets, tl.load(past + offsets, mask=inside), mask=inside)

    groups: tl.constexpr = CHANNELS // SIZE
    mean = tl.load(statistics + channel // SIZE, mask=valid, other=0.0)[None, :]
    rstd = tl.load(statistics + groups + channel // SIZE, mask=valid, other=0.0)
    gain = tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32) * rstd
    offset = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
    row = tl.maximum(latent, 0).to(tl.int64) * tl.num_programs(1) + latent_row
    offsets = row * (row_size // SPACE) + (column // SPACE)[:, None] * CHANNELS + channel[None, :]
    spatial_scale = tl.load(scale + offsets, mask=inside, other=0.0).to(tl.float32)
    offset = offset[None, :] * spatial_scale + tl.load(shift + offsets, mask=inside, other=0.0).to(tl.float32)
    gain = gain[None, :] * spatial_scale
    for step in tl.range(frames * SPACE, num_stages=STAGES):
        frame = begin + step // SPACE
        offsets = (top + step % SPACE) * row_size + column_offsets
        value = tl.load(x + tl.maximum(frame - _PAST, 0) * frame_size + offsets, mask=inside, other=0.0).to(tl.float32)
        y = (value - mean) * gain + offset
        y = y / (1.0 + tl.exp2(-1.4426950408889634 * y))
        tl.store(out + frame * frame_size + offsets, y.to(out.dtype.element_ty), mask=inside)


def spatial_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    enlarge: tuple[int, int],
    past: Tensor | None,
    eps: float,
) -> Tensor:
    """`reference.spatial_norm_silu`; weight, bias, scale and shift may have any supported dtype.

    Raises:
        ValueError: an argument's shape, dtype or device is not the specified one, or it is not contiguous.
    """
    _check(x, groups, weight, bias, scale, shift, enlarge, past)
    _, frames, height, width, channels = x.shape
    dtype, number = DTYPES[x.dtype], architecture(x.device)
    positions, size = frames * height * width, channels // groups

    config = tile("spatial_norm_silu", f"channels-{dtype}", number)
    constants = _channel_constants(channels, config)
    chunk = constants["ROWS"] * max(config["steps"], triton.cdiv(positions, constants["ROWS"] * config["chunks"]))
    chunks = triton.cdiv(positions, chunk)
    partial = torch.empty(2, chunks, channels, dtype=torch.float32, device=x.device)
    statistics = torch.empty(2, groups, dtype=torch.float32, device=x.device)
    out = torch.empty(1, frames + 2, height, width, channels, dtype=x.dtype, device=x.device)
    with current_device(x.device):
        _channel_statistics[(chunks,)](partial, x, positions, chunk, **constants, num_warps=config["num_warps"])
        config = tile("spatial_norm_silu", "groups", number)
        _group_statistics[(groups,)](
            statistics, partial, positions, chunk, chunks, eps,
            **_group_constants(channels, size, config), num_warps=config["num_warps"],
        )  # fmt: skip
        config = tile("spatial_norm_silu", dtype, number)
        constants = _constants(channels, size, enlarge, width, config)
        grid = triton.cdiv(width, constants["ROWS"]), scale.shape[2], scale.shape[1] + (past is not None)
        _spatial_norm_silu[grid](
            out, x, statistics, weight, bias, scale, shift, past, height, width,
            **constants, num_warps=config["num_warps"],
        )  # fmt: skip
    return out


def _check(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    enlarge: tuple[int, int],
    past: Tensor | None,
) -> None:
    require("x", x, (1, None, None, None, None), DTYPES, x.device)
    frames, height, width, channels = x.shape[1:]
    if not x.numel():
        raise ValueError(f"x is empty, {list(x.shape)}; wanted at least one value")
    if groups < 1 or channels % groups:
        raise ValueError(f"x has {channels} channels, not a multiple of {groups} groups")
    for name, vector in (("weight", weight), ("bias", bias)):
        require(name, vector, (channels,), DTYPES, x.device)
    time, space = enlarge
    first = time - 1 if past is None else 0
    if min(enlarge) < 1 or (frames + first) % time or height % space or width % space:
        raise ValueError(
            f"x has {frames} frames of {height} × {width}{' in the first chunk' if past is None else ''}; "
            f"no latents enlarged by {time} in time and {space} in space have that size"
        )
    latents = (1, (frames + first) // time, height // space, width // space, channels)
    for name, field in (("scale", scale), ("shift", shift)):
        require(name, field, latents, DTYPES, x.device)
    if past is not None:
        require("past", past, (1, 2, height, width, channels), (x.dtype,), x.device)


def _rows(block: int, config: dict[str, int]) -> int:
    return max(config["elements"] // block, 1)


def _channel_constants(channels: int, config: dict[str, int]) -> dict[str, int]:
    block = triton.next_power_of_2(channels)
    return {"CHANNELS": channels, "BLOCK": block, "ROWS": _rows(block, config), "STAGES": config["num_stages"]}


def _group_constants(channels: int, size: int, config: dict[str, int]) -> dict[str, int]:
    block = triton.next_power_of_2(size)
    return {"CHANNELS": channels, "SIZE": size, "BLOCK": block, "ROWS": _rows(block, config)}


def _constants(
    channels: int, size: int, enlarge: tuple[int, int], width: int, config: dict[str, int]
) -> dict[str, int]:
    constants = _channel_constants(channels, config)
    constants["ROWS"] = min(constants["ROWS"], triton.next_power_of_2(width))
    return constants | {"SIZE": size, "TIME": enlarge[0], "SPACE": enlarge[1]}


def _variant(
    name: str, kernel: Any, types: dict[str, str], constants: dict[str, Any], config: dict[str, int], number: int
) -> Variant:
    integers = dict.fromkeys(("positions", "chunk", "chunks", "height", "width"), "i32")
    types = integers | {"eps": "fp32", "partial": "*fp32", "statistics": "*fp32"} | types
    return Variant(
        f"spatial_norm_silu/{name}", kernel,
        {argument: types.get(argument, "constexpr") for argument in kernel.arg_names}, constants, (number,),
        warps=config["num_warps"],
        aligned=tuple(argument for argument in kernel.arg_names if types.get(argument, "").startswith("*")),
    )  # fmt: skip


def _variants(number: int) -> Iterator[Variant]:
    """Variants for the smallest and the largest number of channels of the full-size decoder, in 32 groups."""
    for channels, enlarge in ((128, (4, 8)), (512, (2, 2))):
        size = channels // 32
        config = tile("spatial_norm_silu", "groups", number)
        constants: dict[str, Any] = _group_constants(channels, size, config)
        yield _variant(f"groups-c{channels}", _group_statistics, {}, constants, config, number)
        for dtype in DTYPES.values():
            config = tile("spatial_norm_silu", f"channels-{dtype}", number)
            constants = _channel_constants(channels, config)
            types = {"x": f"*{dtype}"}
            yield _variant(f"channels-{dtype}-c{channels}", _channel_statistics, types, constants, config, number)
            config = tile("spatial_norm_silu", dtype, number)
            constants = _constants(channels, size, enlarge, 720, config)
            types = dict.fromkeys(("out", "x", "weight", "bias", "scale", "shift", "past"), f"*{dtype}")
            yield _variant(f"{dtype}-c{channels}", _spatial_norm_silu, types, constants, config, number)
            del types["past"]
            constants = constants | {"past": None}
            yield _variant(f"first-{dtype}-c{channels}", _spatial_norm_silu, types, constants, config, number)


VARIANTS = [variant for number in MATRIX for variant in _variants(number)]
