from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.consisid_transformer_3d import LocalFacialExtractor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.local_extractor import LocalExtractor, LocalExtractorConfig
from consisid_runtime.signatures import LOCAL_EXTRACTOR

CONFIG = {
    "LFE_id_dim": 20,
    "LFE_vit_dim": 16,
    "LFE_depth": 10,
    "LFE_dim_head": 4,
    "LFE_num_heads": 3,
    "LFE_num_id_token": 2,
    "LFE_num_querie": 6,
    "LFE_output_dim": 32,
    "LFE_ff_mult": 3,
    "LFE_num_scale": 5,
}


def test_face_tokens_are_the_reference():
    torch.manual_seed(0)
    reference = LocalFacialExtractor(20, 16, 10, 4, 3, 2, 6, 32, 3, 5).eval()
    config = LocalExtractorConfig.from_dict(CONFIG | {"num_layers": 4})
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        extractor = LocalExtractor(config)
        extractor.load_state_dict(reference.state_dict())
        assert list(extractor.state_dict()) == list(reference.state_dict())
        dims = config.dims | {"clip_tokens": 7}
        identity, hidden = (torch.randn(port.bind(dims).shape) for port in LOCAL_EXTRACTOR.inputs)
        (tokens,) = extractor(identity, hidden)
        expected = reference(identity, list(hidden))
    assert tokens.shape == LOCAL_EXTRACTOR.outputs[0].bind(dims).shape
    assert (tokens - expected).norm() / expected.norm() < 1e-5


def test_layers_must_divide_among_the_scales():
    with pytest.raises(CheckpointInvalid, match="LFE_depth is 9"):
        LocalExtractorConfig.from_dict(CONFIG | {"LFE_depth": 9})
