"""Compares the CLIP judge with transformers' own forward pass and with formulas written independently."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from consisid_fidelity.judges.clip_score import ClipJudge
from consisid_runtime.errors import CheckpointInvalid, MissingExtra
from consisid_runtime.mp4 import Frames

PROMPT = "a person smiles in red"


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> ClipJudge:
    return ClipJudge(judge_folder / "clip", "cpu")


@pytest.fixture(scope="module")
def model(judge_folder: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(judge_folder / "clip").eval()


@pytest.fixture(scope="module")
def video() -> Frames:
    """Patches of 8 × 8 pixels, with different colours in each frame."""
    patches = np.random.default_rng(0).integers(0, 256, (18, 8, 12, 3), dtype=np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


def prepared(video: Frames) -> torch.Tensor:
    """CLIP's preprocessing, by hand: shorter edge to 32 (bicubic), centre crop of 32 × 32, normalisation."""
    small = [np.asarray(Image.fromarray(frame).resize((48, 32), Image.Resampling.BICUBIC)) for frame in video]
    middle = np.stack(small)[:, :, 8:40].astype(np.float32) / 255
    return torch.from_numpy((middle - 0.4) / 0.2).permute(0, 3, 1, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_a_missing_gpu_is_not_replaced_by_the_cpu(judge_folder: Path) -> None:
    with pytest.raises(MissingExtra, match="cuda"):
        ClipJudge(judge_folder / "clip", "cuda")


def test_scores_are_a_hundred_times_the_cosine(judge: ClipJudge, model: CLIPModel, video: Frames) -> None:
    ids = torch.tensor([[0, 3, 4, 5, 6, 1]])  # "in red" truncated to the context of six, with the end token kept
    with torch.inference_mode():
        out = model(input_ids=ids, pixel_values=prepared(video))
    cosines = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
    found = judge.cosines(video, PROMPT)
    assert found.shape == (18,) and np.ptp(found) > 0.01
    assert np.abs(found - cosines.double().numpy()).max() < 1e-5
    assert judge.score(video, PROMPT) == pytest.approx(max(0.0, 100 * found.mean()))
    # ConsisID's evaluation uses the logits, which are the cosines times the model's scale.
    scale = model.logit_scale.exp().item()
    assert np.allclose(out.logits_per_image[:, 0].numpy() / scale, cosines.numpy(), atol=1e-6)


def test_a_negative_mean_counts_as_zero_and_negative_frames_are_not_clamped(judge: ClipJudge, video: Frames) -> None:
    words = ("red", "blue", "a", "person", "smiles")
    pairs = [(video[i : i + 2], word) for i in range(len(video) - 1) for word in words]
    means = [float(judge.cosines(two, word).mean()) for two, word in pairs]
    assert any(mean < 0 for mean in means) and any(mean > 0 for mean in means)
    for (two, word), mean in zip(pairs, means, strict=True):
        assert judge.score(two, word) == pytest.approx(max(0.0, 100 * mean), abs=1e-4)


def test_weights_that_give_nan_are_named(judge_folder: Path, tmp_path: Path, video: Frames) -> None:
    shutil.copytree(judge_folder / "clip", tmp_path / "clip")
    model = CLIPModel.from_pretrained(tmp_path / "clip")
    with torch.no_grad():
        model.visual_projection.weight.fill_(torch.nan)
    model.save_pretrained(tmp_path / "clip")
    with pytest.raises(CheckpointInvalid, match="not finite"):
        ClipJudge(tmp_path / "clip", "cpu").score(video, PROMPT)


def test_feature_distance_by_hand(judge: ClipJudge, model: CLIPModel) -> None:
    rng = np.random.default_rng(1)
    pair = rng.integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        hidden = [
            model.vision_model(
                torch.from_numpy((one.astype(np.float32) / 255 - 0.4) / 0.2).permute(0, 3, 1, 2),
                output_hidden_states=True,
            ).hidden_states
            for one in pair
        ]
    blocks = []
    for a, b in zip(*(states[1:] for states in hidden), strict=True):
        unit = [(x / x.norm(dim=-1, keepdim=True))[0].double().numpy() for x in (a, b)]
        blocks.append(np.mean(np.sum((unit[0] - unit[1]) ** 2, axis=-1)))
    assert len(blocks) == 2
    assert judge.feature_distance(pair[0], pair[1]) == pytest.approx(np.mean(blocks), rel=1e-4)


def test_feature_distance_grows_with_noise_and_covers_the_edges(judge: ClipJudge, video: Frames) -> None:
    assert judge.feature_distance(video, video) == 0.0
    noise = np.random.default_rng(2).normal(0, 1, video.shape)
    distances = [
        judge.feature_distance(np.clip(video + levels * noise, 0, 255).astype(np.uint8), video) for levels in (8, 32)
    ]
    assert 0 < distances[0] < distances[1] < 4
    sides = video.copy()
    sides[:, :, :10] = 0
    assert judge.feature_distance(sides, video) > 0
    with pytest.raises(ValueError, match="equal shapes"):
        judge.feature_distance(video[:2], video)


def test_batching_does_not_change_the_result(judge: ClipJudge, video: Frames) -> None:
    alone = np.concatenate([judge.cosines(frame[None], PROMPT) for frame in video])
    assert np.abs(alone - judge.cosines(video, PROMPT)).max() < 1e-5


def test_a_folder_that_is_not_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointInvalid, match="not a CLIP folder"):
        ClipJudge(tmp_path, "cpu")
