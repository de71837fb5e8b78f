"""CLIPScore of a video and a prompt, and a perceptual distance in CLIP's features.

CLIPScore here is 100 · max(mean over frames of cos(image, text), 0), as in torchmetrics; Hessel et al. (2021) use
w = 2.5 instead of 100. ConsisID's evaluation (eval/get_clipscore.py) takes the mean of `logits_per_image`: the cosine
times the model's scale, exp(4.6052) = 100 for OpenAI's checkpoints, without clamping; its values of 25 to 37 are in the
same unit. It reads frame ⌊i · n / 16⌋ for i < 16 with blue and red exchanged; here frames are evenly spaced from first
to last, in RGB. Both truncate prompts longer than the text tower's context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from consisid_fidelity.judges.networks import BATCH
from consisid_runtime.engines.torch import torch_device
from consisid_runtime.errors import CheckpointInvalid, MissingExtra
from consisid_runtime.mp4 import Frames


class ClipJudge:
    """A CLIP folder of Hugging Face's layout: config.json, model.safetensors, tokenizer and preprocessor_config.json.

    Uses transformers' Pillow-based image processor, which needs no torchvision. Downloads nothing.

    Args:
        folder: the CLIP folder.
        device: one of `engines.DEVICES`.

    Raises `CheckpointInvalid` when the folder cannot be loaded, `MissingExtra` without transformers, or when CUDA is
    requested but unavailable.
    """

    def __init__(self, folder: Path, device: str) -> None:
        try:
            from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
            from transformers.utils import logging
        except ImportError as missing:
            raise MissingExtra(
                f"CLIPScore needs transformers ({missing}): pip install 'consisid-runtime[bench]'"
            ) from missing
        self._folder = folder
        self._device = torch_device(device)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # commands show their own progress
        try:
            model: Any = CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # missing, damaged and mismatched files raise different types
            raise CheckpointInvalid(f"{folder} is not a CLIP folder that transformers can load: {error}") from error
        self._model = model.eval().to(self._device)
        self._edge = int(model.config.vision_config.image_size)
        self._context = int(model.config.text_config.max_position_embeddings)

    def score(self, frames: Frames, prompt: str) -> float:
        """CLIPScore of a video, 0 to 100; frames are uint8 [F, H, W, 3] RGB."""
        return max(0.0, 100 * float(self.cosines(frames, prompt).mean()))

    def cosines(self, frames: Frames, prompt: str) -> npt.NDArray[np.float64]:
        """Cosine similarity of each frame to the prompt [F]. Raises `CheckpointInvalid` for values that are not finite.

        CLIP's own preprocessing applies: the shorter edge is scaled and the centre square is cropped.
        """
        text = self._tokenizer([prompt], return_tensors="pt", truncation=True, max_length=self._context)
        cosines: list[Tensor] = []
        with torch.inference_mode():
            for batch in _batches(frames):
                pixels = self._processor(images=batch, return_tensors="pt")["pixel_values"]
                out = self._model(
                    input_ids=text["input_ids"].to(self._device),
                    attention_mask=text["attention_mask"].to(self._device),
                    pixel_values=pixels.to(self._device),
                )
                cosines.append((out.image_embeds @ out.text_embeds.T)[:, 0])
        found = np.asarray(torch.cat(cosines).double().numpy(force=True))
        if not np.isfinite(found).all():
            raise CheckpointInvalid(f"{self._folder} returns a similarity that is not finite; its weights are damaged")
        return found

    def feature_distance(self, frames: Frames, reference: Frames) -> float:
        """Perceptual distance of two videos, uint8 [F, H, W, 3] each: 0 for equal videos, at most 4.

        The squared distance between the features of two frames after each block of CLIP's vision tower, normalised to
        unit length, averaged over positions, blocks and frames. The form is that of LPIPS (Zhang et al. 2018), but with
        another network and without learned weights, so values cannot be compared with LPIPS. The whole frame is
        resized to a square, without cropping.

        Raises `ValueError` for unequal shapes.
        """
        if frames.shape != reference.shape:
            raise ValueError(f"both videos need equal shapes, got {list(frames.shape)} and {list(reference.shape)}")
        total = 0.0
        for one, other in zip(_batches(frames), _batches(reference), strict=True):
            for a, b in zip(self._features(one), self._features(other), strict=True):
                total += float((a - b).square().sum(dim=-1).mean(dim=1).double().sum())
        return total / (len(frames) * int(self._model.config.vision_config.num_hidden_layers))

    def _features(self, frames: list[Any]) -> list[Tensor]:
        """Unit-length features after each block [n, positions, width]."""
        whole = {"height": self._edge, "width": self._edge}
        prepared = self._processor(images=frames, return_tensors="pt", size=whole, do_center_crop=False)
        with torch.inference_mode():
            outputs = self._model.vision_model(prepared["pixel_values"].to(self._device), output_hidden_states=True)
        return [torch.nn.functional.normalize(layer, dim=-1) for layer in outputs.hidden_states[1:]]


def _batches(frames: Frames) -> list[list[Any]]:
    return [list(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH)]
