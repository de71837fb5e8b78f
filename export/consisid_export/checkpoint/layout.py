"""Where each file of a checkpoint lies, in the official folder's layout."""

from __future__ import annotations

from consisid_runtime.models.configs.checkpoint import FILES as CONFIGS

__all__ = ["CONFIGS", "DETECTOR", "MODEL_INDEX", "PICKLES", "RECOGNISER", "SAFETENSORS", "TOKENIZER"]

SAFETENSORS = {
    "transformer": "transformer/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
}
"""Component → its weights, without the ending: one file, or an index and its shards."""
PICKLES = {
    "aligner": "face_encoder/detection_Resnet50_Final.pth",
    "parser": "face_encoder/parsing_bisenet.pth",
    "clip": "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt",
}
TOKENIZER = "tokenizer/spiece.model"
DETECTOR = "face_encoder/models/antelopev2/scrfd_10g_bnkps.onnx"
RECOGNISER = "face_encoder/models/antelopev2/glintr100.onnx"
MODEL_INDEX = "model_index.json"
