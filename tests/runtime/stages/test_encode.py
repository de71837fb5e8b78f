"""What the encoder is given, against diffusers' keypoint drawing and image preprocessing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.stages.encode import Encoder, draw_keypoints


class FakeBundle:
    def __init__(self, is_kps: bool) -> None:
        self.images: list[Tensor] = []
        self.config = SimpleNamespace(transformer=SimpleNamespace(is_kps=is_kps))

    def module(self, name: str) -> Any:
        assert name == "vae_encoder"

        def encode(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            self.images.append(inputs["image"])
            return {"moments": inputs["image"][:, :, ::8, ::8]}

        return encode


def a_plan(height: int, width: int) -> Plan:
    return plan(Options(height=height, width=width), Geometry(9, 480, 720, 8, 4, 2, fixed_size=False))


def keypoints(seed: int, low: float = 0, high: float = 512) -> Any:
    return np.random.default_rng(seed).uniform(low, high, (5, 2)).astype(np.float32)


def reference_drawing(points: Any, height: int, width: int) -> Any:
    from diffusers.pipelines.consisid import pipeline_consisid

    draw: Any = pipeline_consisid.draw_kps
    return draw(Image.new("RGB", (width, height)), points)


@pytest.mark.parametrize("seed", range(20))
def test_drawing(seed: int) -> None:
    # the second half reaches outside of the image, as source-image coordinates do
    points = keypoints(seed, *((0, 512) if seed < 10 else (-300, 900)))
    drawing = draw_keypoints(points, 512, 400)
    assert np.array_equal(drawing, reference_drawing(points, 512, 400))
    assert drawing.any() or seed >= 10


def test_drawing_of_coinciding_points() -> None:
    points = np.full((5, 2), 40.5, np.float32)
    assert np.array_equal(draw_keypoints(points, 64, 64), reference_drawing(points, 64, 64))


@pytest.mark.parametrize(("height", "width"), [(480, 720), (512, 512), (64, 96), (704, 1008)])
@pytest.mark.parametrize("is_kps", [False, True])
def test_images_are_those_of_the_reference(height: int, width: int, is_kps: bool) -> None:
    import diffusers

    build: Any = diffusers.video_processor.VideoProcessor
    processor = build(vae_scale_factor=8)
    portrait = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    points = keypoints(0)
    bundle = FakeBundle(is_kps)
    moments = Encoder(bundle)(portrait, points, a_plan(height, width))  # type: ignore[arg-type]
    pictures = [Image.fromarray(portrait)] + [reference_drawing(points, 512, 512)] * is_kps
    wanted = torch.cat([processor.preprocess(picture, height=height, width=width) for picture in pictures])
    assert len(bundle.images) == 1
    assert bundle.images[0].dtype == torch.float32
    assert torch.equal(bundle.images[0], wanted)
    assert torch.equal(moments, wanted[None, :, :, ::8, ::8])
