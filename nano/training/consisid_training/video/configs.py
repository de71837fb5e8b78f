"""Configurations of the transformer and the text encoder, with the entries of their files."""

from __future__ import annotations

from typing import Any

from consisid_training.faces import clip_tower, recogniser

LENGTH = 32  # tokens of a prompt
TRANSFORMER: dict[str, Any] = {
    "LFE_depth": 5, "LFE_dim_head": 32, "LFE_ff_mult": 4, "LFE_id_dim": recogniser.OUT + clip_tower.OUT,
    "LFE_num_heads": 2, "LFE_num_id_token": 5, "LFE_num_querie": 16, "LFE_num_scale": 5, "LFE_output_dim": 128,
    "LFE_vit_dim": clip_tower.WIDTH, "activation_fn": "gelu-approximate", "attention_bias": True,
    "attention_head_dim": 64, "cross_attn_dim_head": 64, "cross_attn_interval": 2, "cross_attn_num_heads": 2,
    "dropout": 0.0, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 32, "is_kps": False,
    "is_train_face": True, "local_face_scale": 1.0, "max_text_seq_length": LENGTH, "norm_elementwise_affine": True,
    "norm_eps": 1e-05, "num_attention_heads": 3, "num_layers": 6, "out_channels": 16, "patch_size": 2,
    "sample_frames": 17, "sample_height": 16, "sample_width": 24, "spatial_interpolation_scale": 1.875,
    "temporal_compression_ratio": 4, "temporal_interpolation_scale": 1.0, "text_embed_dim": 64, "time_embed_dim": 64,
    "timestep_activation_fn": "silu", "use_learned_positional_embeddings": True,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
TEXT_ENCODER: dict[str, Any] = {
    "d_ff": 128, "d_kv": 16, "d_model": 64, "dropout_rate": 0.0, "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-06, "num_heads": 4, "num_layers": 2, "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32, "tie_word_embeddings": False,
}  # fmt: skip
