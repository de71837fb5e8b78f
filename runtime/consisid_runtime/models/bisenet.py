"""BiSeNet with a ResNet-18 body: labels each pixel of an aligned face. Weights by facexlib's names.

Yu et al., "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation" (2018). The two auxiliary heads
of the checkpoint are for training only; they are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import Blueprint, fill

_TRAINING_ONLY = ("conv_out16.", "conv_out32.")


class BiSeNet(nn.Module):
    """Face parsing.

    Args:
        tensors: the checkpoint's, whose shapes decide every width and depth.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        at = Blueprint(_used(tensors))
        self.cp = _ContextPath(at / "cp")
        self.ffm = _FeatureFusion(at / "ffm")
        self.conv_out = _Output(at / "conv_out")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32) -> BiSeNet:
        """The network with the checkpoint's weights as `dtype`, or as they are. Raises `CheckpointInvalid`."""
        with torch.device("meta"):
            network = cls(tensors)
        return fill(network, _used(tensors), dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Labels [1, H, W] uint8 of an image [1, 3, H, W], RGB in 0…1 normalised by ImageNet's mean and deviation."""
        return self.logits(image).argmax(dim=1).to(torch.uint8)

    def logits(self, image: Tensor) -> Tensor:
        """Scores [1, labels, H, W], of which the labels are the largest."""
        logits = self.conv_out(self.ffm(*self.cp(image)))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=True)


class _ConvNorm(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.conv = at.conv("conv")
        self.bn = at.batch_norm("bn")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    def __init__(self, at: Blueprint, stride: int) -> None:
        super().__init__()
        self.conv1 = at.conv("conv1", stride)
        self.bn1 = at.batch_norm("bn1")
        self.conv2 = at.conv("conv2")
        self.bn2 = at.batch_norm("bn2")
        self.downsample = (
            nn.Sequential((at / "downsample").conv("0", stride), (at / "downsample").batch_norm("1"))
            if "downsample" in at
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.downsample(x) + self.bn2(self.conv2(y)))


class _Body(nn.Module):
    """ResNet-18; returns the features of its last three levels."""

    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.conv1 = at.conv("conv1", stride=2)
        self.bn1 = at.batch_norm("bn1")
        self.layer1 = _stage(at / "layer1", stride=1)
        self.layer2 = _stage(at / "layer2", stride=2)
        self.layer3 = _stage(at / "layer3", stride=2)
        self.layer4 = _stage(at / "layer4", stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), kernel_size=3, stride=2, padding=1)
        stride8 = self.layer2(self.layer1(x))
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


class _AttentionRefinement(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.conv = _ConvNorm(at / "conv")
        self.conv_atten = at.conv("conv_atten")
        self.bn_atten = at.batch_norm("bn_atten")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        attention: Tensor = self.bn_atten(self.conv_atten(_pool(x)))
        return x * attention.sigmoid()


class _ContextPath(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.resnet = _Body(at / "resnet")
        self.arm16 = _AttentionRefinement(at / "arm16")
        self.arm32 = _AttentionRefinement(at / "arm32")
        self.conv_head32 = _ConvNorm(at / "conv_head32")
        self.conv_head16 = _ConvNorm(at / "conv_head16")
        self.conv_avg = _ConvNorm(at / "conv_avg")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features at stride 8, before and after the features of coarser strides are added."""
        stride8, stride16, stride32 = self.resnet(x)
        context = self.arm32(stride32) + self.conv_avg(_pool(stride32))
        context = self.conv_head32(F.interpolate(context, size=stride16.shape[-2:], mode="nearest"))
        context = self.arm16(stride16) + context
        return stride8, self.conv_head16(F.interpolate(context, size=stride8.shape[-2:], mode="nearest"))


class _FeatureFusion(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.convblk = _ConvNorm(at / "convblk")
        self.conv1 = at.conv("conv1")
        self.conv2 = at.conv("conv2")

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.convblk(torch.cat((spatial, context), dim=1))
        attention: Tensor = self.conv2(F.relu(self.conv1(_pool(x))))
        return x * attention.sigmoid() + x


class _Output(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.conv = _ConvNorm(at / "conv")
        self.conv_out = at.conv("conv_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))  # type: ignore[no-any-return]


def _stage(at: Blueprint, stride: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(at / block, 1 if block else stride) for block in range(at.count())))


def _pool(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _used(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRAINING_ONLY)}
