"""CLIPScore of a video and a prompt, and a perceptual distance in CLIP's features.

CLIPScore here is 100 · max(mean over frames of cos(image, text), 0), as torchmetrics has it; Hessel et al. (2021) have
w = 2.5 instead of 100. ConsisID's evaluation (eval/get_clipscore.py) takes the mean of `logits_per_image`: the cosine
times the model's own scale, exp(4.6052) = 100 for OpenAI's checkpoints, negative values as they are; so its 25 to 37
are in this unit. It looks at frame ⌊i · n / 16⌋ for i < 16, whose blue and red are exchanged; here frames are evenly
spaced from first to last, in their colours. Prompts longer than the text tower's context are cut there and here.
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
from consisid_runtime.video import Frames


class ClipJudge:
    """A CLIP folder of Hugging Face's layout: config.json, model.safetensors, tokenizer and preprocessor_config.json.

    Pictures are prepared by transformers' processor on Pillow, which needs no torchvision. Nothing is downloaded.

    Args:
        folder: the CLIP folder.
        device: "cpu", "cuda" or "auto".

    Raises `CheckpointInvalid` where the folder cannot be loaded, `MissingExtra` without transformers, and where CUDA is
    asked for and is not there.
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
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # commands have a display of their own
        try:
            model: Any = CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # missing, damaged and mismatched files each raise something else
            raise CheckpointInvalid(f"{folder} is no CLIP folder that transformers can load: {error}") from error
        self._model = model.eval().to(self._device)
        self._edge = int(model.config.vision_config.image_size)
        self._context = int(model.config.text_config.max_position_embeddings)

    def score(self, frames: Frames, prompt: str) -> float:
        """CLIPScore of a video, 0 to 100; frames are uint8 [F, H, W, 3] RGB."""
        return max(0.0, 100 * float(self.cosines(frames, prompt).mean()))

    def cosines(self, frames: Frames, prompt: str) -> npt.NDArray[np.float64]:
        """Of each frame [F] to the prompt. Raises `CheckpointInvalid` where one is not finite.

        As CLIP prepares pictures, the shorter edge is scaled and the middle square is seen.
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
            raise CheckpointInvalid(f"{self._folder} gives a similarity that is not finite; its weights are damaged")
        return found

    def feature_distance(self, frames: Frames, reference: Frames) -> float:
        """Perceptual distance of two videos, uint8 [F, H, W, 3] each: 0 for equal ones, at most 4.

        The squared distance between the two frames' features after each block of CLIP's vision tower, features scaled
        to length one, mean over places, blocks and frames. It has LPIPS's form (Zhang et al. 2018), but neither its
        network nor its weights, so its values are no LPIPS. The whole frame is seen, squeezed to a square.

        Raises `ValueError` for unequal shapes.
        """
        if frames.shape != reference.shape:
            raise ValueError(f"a pair needs equal shapes, got {list(frames.shape)} and {list(reference.shape)}")
        total = 0.0
        for one, other in zip(_batches(frames), _batches(reference), strict=True):
            for a, b in zip(self._features(one), self._features(other), strict=True):
                total += float((a - b).square().sum(dim=-1).mean(dim=1).double().sum())
        return total / (len(frames) * int(self._model.config.vision_config.num_hidden_layers))

    def _features(self, frames: list[Any]) -> list[Tensor]:
        """After each block [n, places, width], of length one."""
        whole = {"height": self._edge, "width": self._edge}
        prepared = self._processor(images=frames, return_tensors="pt", size=whole, do_center_crop=False)
        with torch.inference_mode():
            seen = self._model.vision_model(prepared["pixel_values"].to(self._device), output_hidden_states=True)
        return [torch.nn.functional.normalize(layer, dim=-1) for layer in seen.hidden_states[1:]]


def _batches(frames: Frames) -> list[list[Any]]:
    return [list(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH)]
