"""RetinaFace with a ResNet-50 body: finds faces and five landmarks each. Weights by facexlib's names.

Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild" (2019). Decoding and suppression of
overlapping boxes are in `face_geometry`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import Blueprint, fill

_LEAKY_UP_TO = 64  # widths at which facexlib's necks leak


class RetinaFace(nn.Module):
    """Raw heads over three strides (8, 16, 32), two anchors a cell.

    Args:
        tensors: the checkpoint's, whose shapes decide every width and depth. A `module.` before each name is allowed.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        at = Blueprint(_bare(tensors))
        self.body = _Body(at / "body")
        self.fpn = _Pyramid(at / "fpn")
        self.ssh1 = _ContextModule(at / "ssh1")
        self.ssh2 = _ContextModule(at / "ssh2")
        self.ssh3 = _ContextModule(at / "ssh3")
        self.ClassHead = nn.ModuleList(_Head(at / "ClassHead" / level, 2) for level in range(3))
        self.BboxHead = nn.ModuleList(_Head(at / "BboxHead" / level, 4) for level in range(3))
        self.LandmarkHead = nn.ModuleList(_Head(at / "LandmarkHead" / level, 10) for level in range(3))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32) -> RetinaFace:
        """The network with the checkpoint's weights as `dtype`, or as they are. Raises `CheckpointInvalid`."""
        with torch.device("meta"):
            network = cls(tensors)
        return fill(network, _bare(tensors), dtype)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Heads for every anchor, in the order of `face_geometry.anchors`.

        Args:
            image: [1, 3, H, W] float, BGR minus `face_geometry.ALIGNER_MEAN`, any H and W.

        Returns boxes [1, A, 4] and landmarks [1, A, 10], both relative to the anchors, and scores [1, A, 2], the
        probabilities of background and face.
        """
        levels = self.fpn(self.body(image))
        features = [module(level) for module, level in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]
        boxes, scores, landmarks = (
            torch.cat([head(feature) for head, feature in zip(heads, features, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, scores.softmax(-1), landmarks


class _Body(nn.Module):
    """ResNet (v1.5: the 3×3 convolution strides) down to its last three stages."""

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


class _Bottleneck(nn.Module):
    def __init__(self, at: Blueprint, stride: int) -> None:
        super().__init__()
        self.conv1 = at.conv("conv1")
        self.bn1 = at.batch_norm("bn1")
        self.conv2 = at.conv("conv2", stride)
        self.bn2 = at.batch_norm("bn2")
        self.conv3 = at.conv("conv3")
        self.bn3 = at.batch_norm("bn3")
        self.downsample = (
            nn.Sequential((at / "downsample").conv("0", stride), (at / "downsample").batch_norm("1"))
            if "downsample" in at
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class _Pyramid(nn.Module):
    """Feature pyramid: coarse levels are added to finer ones."""

    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.output1 = _conv_norm(at / "output1", relu=True)
        self.output2 = _conv_norm(at / "output2", relu=True)
        self.output3 = _conv_norm(at / "output3", relu=True)
        self.merge1 = _conv_norm(at / "merge1", relu=True)
        self.merge2 = _conv_norm(at / "merge2", relu=True)

    def forward(self, levels: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(levels[0]), self.output2(levels[1]), self.output3(levels[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[-2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[-2:], mode="nearest"))
        return fine, middle, coarse


class _ContextModule(nn.Module):
    """Three receptive fields side by side (SSH: "Single Stage Headless Face Detector", Najibi et al. 2017)."""

    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        # What leaks is decided by the module's whole width, of which the 3×3 branch is half.
        leaky = 2 * at.shape("conv3X3.0.weight", 4)[0] <= _LEAKY_UP_TO
        self.conv3X3 = _conv_norm(at / "conv3X3")
        self.conv5X5_1 = _conv_norm(at / "conv5X5_1", relu=True, leaky=leaky)
        self.conv5X5_2 = _conv_norm(at / "conv5X5_2")
        self.conv7X7_2 = _conv_norm(at / "conv7X7_2", relu=True, leaky=leaky)
        self.conv7x7_3 = _conv_norm(at / "conv7x7_3")

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        branches = self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))
        return F.relu(torch.cat(branches, dim=1))


class _Head(nn.Module):
    def __init__(self, at: Blueprint, values: int) -> None:
        super().__init__()
        self.conv1x1 = at.conv("conv1x1", bias=True)
        self._values = values

    def forward(self, x: Tensor) -> Tensor:
        heads: Tensor = self.conv1x1(x)
        return heads.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self._values)


def _stage(at: Blueprint, stride: int) -> nn.Sequential:
    return nn.Sequential(*(_Bottleneck(at / block, 1 if block else stride) for block in range(at.count())))


def _conv_norm(at: Blueprint, relu: bool = False, leaky: bool | None = None) -> nn.Sequential:
    conv = at.conv("0")
    layers: list[nn.Module] = [conv, at.batch_norm("1")]
    if relu:
        leaky = conv.out_channels <= _LEAKY_UP_TO if leaky is None else leaky
        layers.append(nn.LeakyReLU(0.1) if leaky else nn.ReLU())
    return nn.Sequential(*layers)


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
