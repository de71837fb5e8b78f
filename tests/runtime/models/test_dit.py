from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import ConsisIDTransformer3DModel
from torch.export import Dim

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.configs.dit import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.dit import DiT, Modulate, Prepare, Step
from consisid_runtime.models.local_extractor import PREFIX, LocalExtractor
from consisid_runtime.models.positions import added_positions, rope
from consisid_runtime.signatures import DIT_MODULATE, DIT_PREPARE, DIT_STEP, Signature

CONFIG = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 20,
    "text_embed_dim": 24,
    "num_layers": 4,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 5,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
    "is_train_face": True,
    "cross_attn_interval": 2,
    "cross_attn_dim_head": 8,
    "cross_attn_num_heads": 2,
    "LFE_id_dim": 20,
    "LFE_vit_dim": 16,
    "LFE_depth": 5,
    "LFE_dim_head": 4,
    "LFE_num_heads": 2,
    "LFE_num_id_token": 2,
    "LFE_num_querie": 6,
    "LFE_output_dim": 32,
    "LFE_num_scale": 5,
    "local_face_scale": 0.7,
}
TRAINED = (3, 2, 3)


def build(**changed):
    """diffusers' transformer with every parameter random, and ours with the same ones."""
    torch.manual_seed(0)
    config = CONFIG | changed
    reference = ConsisIDTransformer3DModel(**config).eval()
    with torch.no_grad():
        for tensor in (*reference.parameters(), *reference.buffers()):
            tensor.add_(0.2 * torch.randn_like(tensor))
        for block in reference.transformer_blocks:
            # Queries so small that the epsilon of their norm shows.
            block.attn1.to_q.weight.mul_(0.01)
            if block.attn1.to_q.bias is not None:
                block.attn1.to_q.bias.mul_(0.01)
    dit = DiT(DiTConfig.from_dict(config)).eval()
    extractor = LocalExtractor(LocalExtractorConfig.from_dict(config)).eval()
    state = reference.state_dict()
    dit.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)})
    extractor.load_state_dict({n.removeprefix(PREFIX): t for n, t in state.items() if n.startswith(PREFIX)})
    return reference, dit, extractor


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


def request(dit, grid, branches):
    """Random inputs of one request, by port name, positions and rotation included."""
    frames, rows, columns = grid
    dims = dit.config.dims | {"branches": branches, "frames": frames, "rows": rows, "columns": columns}
    ports = {port.name: port.bind(dims) for port in (*DIT_PREPARE.inputs, *DIT_STEP.inputs)}
    names = ("text_states", "face_tokens", "image_latents", "latents")
    tensors = {name: torch.randn(ports[name].shape) for name in names}
    learned = dict(dit.patch_embed.named_buffers()).get("pos_embedding")
    tensors["text_positions"], tensors["video_positions"] = added_positions(dit.config, *grid, learned)
    tensors["rope_cos"], tensors["rope_sin"] = rope(dit.config, *grid)
    return dims, tensors


def call(module, signature: Signature, tensors, dims):
    """Run a module on ports by name and check what comes out against its signature."""
    outputs = module(*(tensors[port.name] for port in signature.inputs))
    for output, port in zip(outputs, signature.outputs, strict=True):
        assert (output.shape, output.dtype) == (port.bind(dims).shape, torch.float32), port
    return {port.name: output for port, output in zip(signature.outputs, outputs, strict=True)}


def step_inputs(dit, tensors, dims, timesteps):
    """What `Step` takes at the first of some timesteps."""
    tensors = tensors | call(Prepare(dit), DIT_PREPARE, tensors, dims)
    tables = call(Modulate(dit), DIT_MODULATE, {"timesteps": timesteps}, dims | {"steps": len(timesteps)})
    return tensors | {"block_modulation": tables["block_modulations"][0]} | {
        "final_modulation": tables["final_modulations"][0]
    }  # fmt: skip


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize(
    ("changed", "grid"),
    [
        ({}, TRAINED),
        ({}, (2, 2, 3)),
        ({"use_learned_positional_embeddings": False}, TRAINED),
        ({"use_learned_positional_embeddings": False}, (4, 3, 2)),
        ({"use_learned_positional_embeddings": False, "use_rotary_positional_embeddings": False}, (2, 3, 4)),
        ({"attention_bias": False, "norm_eps": 1e-3, "flip_sin_to_cos": False, "freq_shift": 1}, TRAINED),
        ({"patch_size": 1, "sample_height": 2, "sample_width": 3, "cross_attn_interval": 1}, TRAINED),
        ({"norm_elementwise_affine": False}, TRAINED),
    ],
    ids=["learned", "other-frames", "rope", "rope-other-size", "sincos", "bias-eps-time", "patch-interval", "affine"],
)
def test_the_cut_transformer_is_the_whole_one(changed, grid, branches):
    reference, dit, extractor = build(**changed)
    dims, tensors = request(dit, grid, branches)
    identity, hidden = torch.randn(1, 20), torch.randn(5, 1, 7, 16)
    rotary = None
    if dit.config.use_rotary_positional_embeddings:
        rotary = tuple(tensors[name].flatten(0, 2) for name in ("rope_cos", "rope_sin"))
    with torch.no_grad():
        (tensors["face_tokens"],) = extractor(identity, hidden)
        for timestep in (999, 519, 0):
            inputs = step_inputs(dit, tensors, dims, torch.tensor([timestep, 77]))
            got = call(Step(dit), DIT_STEP, inputs, dims)["velocity"]
            (expected,) = reference(
                hidden_states=torch.cat((tensors["latents"], tensors["image_latents"]), dim=2).expand(
                    branches, -1, -1, -1, -1
                ),
                encoder_hidden_states=tensors["text_states"],
                timestep=torch.tensor([timestep]).expand(branches),
                image_rotary_emb=rotary,
                id_cond=identity,
                id_vit_hidden=list(hidden),
                return_dict=False,
            )
            assert error(got, expected) < 1e-5


def test_names_are_the_checkpoints():
    reference, dit, _ = build()
    names = {name for name in reference.state_dict() if not name.startswith(PREFIX)}
    assert set(dit.state_dict()) == names
    used = [set(module(dit).state_dict()) for module in (Prepare, Modulate, Step)]
    shared = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert set().union(*used) == names - {"patch_embed.pos_embedding"}
    assert used[0] & used[2] == shared
    assert not used[1] & (used[0] | used[2])


def test_every_input_of_a_step_moves_its_output():
    _, dit, _ = build()
    dims, tensors = request(dit, TRAINED, 2)
    with torch.no_grad():
        inputs = step_inputs(dit, tensors, dims, torch.tensor([519]))
        step = Step(dit)
        still = call(step, DIT_STEP, inputs, dims)["velocity"]
        for name, tensor in inputs.items():
            if name in {port.name for port in DIT_STEP.inputs}:
                moved = call(step, DIT_STEP, inputs | {name: tensor + 0.1 * torch.randn_like(tensor)}, dims)["velocity"]
                assert error(moved, still) > 1e-3, name


def test_half_precision_errs_no_more_than_the_reference():
    reference, dit, extractor = build()
    dims, tensors = request(dit, TRAINED, 2)
    identity, hidden = torch.randn(1, 20), torch.randn(5, 1, 7, 16)
    rotary = tuple(tensors[name].flatten(0, 2) for name in ("rope_cos", "rope_sin"))

    def theirs(dtype):
        return reference.to(dtype)(
            hidden_states=torch.cat((tensors["latents"], tensors["image_latents"]), dim=2)
            .expand(2, -1, -1, -1, -1)
            .to(dtype),
            encoder_hidden_states=tensors["text_states"].to(dtype),
            timestep=torch.tensor([519, 519]),
            image_rotary_emb=rotary,
            id_cond=identity,
            id_vit_hidden=list(hidden),
            return_dict=False,
        )[0].float()

    with torch.no_grad():
        exact = theirs(torch.float32)
        allowed = 2 * error(theirs(torch.bfloat16), exact)
        (tensors["face_tokens"],) = extractor.bfloat16()(identity, hidden)
        inputs = step_inputs(dit.bfloat16(), tensors, dims, torch.tensor([519]))
        assert error(call(Step(dit), DIT_STEP, inputs, dims)["velocity"], exact) < allowed


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
def test_the_exported_step_keeps_its_dynamic_sizes(tmp_path):
    _, dit, _ = build(num_layers=2)
    step = Step(dit).eval()
    dims, tensors = request(dit, TRAINED, 2)
    path = tmp_path / "step.onnx"
    symbols = {name: Dim(name, min=1, max=64) for name in ("branches", "frames", "rows", "columns")}
    sizes = symbols | {"patch*rows": 2 * symbols["rows"], "patch*columns": 2 * symbols["columns"]}
    bound = DIT_STEP.bind(dit.config.dims)
    axes = [
        {axis: sizes[size.replace("2*", "patch*")] for axis, size in port.dynamic_axes.items()} or None
        for port in bound.inputs
    ]
    with torch.no_grad():
        inputs = step_inputs(dit, tensors, dims, torch.tensor([519]))
        torch.onnx.export(
            step,
            tuple(inputs[port.name] for port in DIT_STEP.inputs),
            path,
            dynamo=True,
            opset_version=23,
            input_names=[port.name for port in DIT_STEP.inputs],
            output_names=["velocity"],
            dynamic_shapes=tuple(axes),
            verbose=False,
        )
    graph = onnx.load(path).graph
    for port, value in zip(bound.inputs, graph.input, strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            assert bool(dim.dim_param) == (axis in port.dynamic_axes), (port.name, axis)
    assert not {"ScatterND", "If", "Loop"} & {node.op_type for node in graph.node}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for grid, branches in ((TRAINED, 2), ((2, 4, 5), 1)):
        dims, tensors = request(dit, grid, branches)
        with torch.no_grad():
            inputs = step_inputs(dit, tensors, dims, torch.tensor([77]))
            expected = call(step, DIT_STEP, inputs, dims)["velocity"]
        feed = {port.name: np.asarray(inputs[port.name]) for port in DIT_STEP.inputs}
        assert error(torch.from_numpy(session.run(None, feed)[0]), expected) < 1e-5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_train_face", False),
        ("activation_fn", "geglu"),
        ("timestep_activation_fn", "gelu"),
        ("use_rotary_positional_embeddings", False),
        ("attention_head_dim", 24),
        ("num_layers", 3),
        ("in_channels", 9),
        ("LFE_output_dim", 48),
    ],
)
def test_a_configuration_that_cannot_run_is_named(key, value):
    with pytest.raises(CheckpointInvalid, match=f"{key} is {value!r}"):
        DiTConfig.from_dict(CONFIG | {key: value})
