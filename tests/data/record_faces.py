"""Records what the reference's face path computes, for tests that run without its packages.

Needs facexlib 0.3.0 and consisid-eva-clip 1.0.2 with torch 2.13.0, torchvision 0.28.0, diffusers 0.42.1 and insightface
2.1, in an environment of their own (see CONTRIBUTING). Weights are drawn, not read: `faces.npz` holds their names and
shapes, the tests draw the same values again.

    python tests/data/record_faces.py        # writes tests/data/faces.npz
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

RECORD = Path(__file__).with_name("faces.npz")
CANVAS = 640
FACE_PATTERN = [(-0.2, -0.2), (0.2, -0.2), (0.0, 0.0), (-0.15, 0.25), (0.15, 0.25)]


def seeded(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Plausible weights for these names, drawn in the order of the names: the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.zeros(shape, dtype=torch.int64)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + noise.abs()
        elif len(shape) >= 2:
            tensors[name] = noise * (2 / math.prod(shape[1:])) ** 0.5
        elif name.endswith("weight"):
            tensors[name] = 1 + 0.1 * noise
        else:
            tensors[name] = 0.1 * noise
    return tensors


def photo(height: int, width: int, seed: int) -> np.ndarray[Any, Any]:
    """A blocky colour image [H, W, 3] uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def portrait() -> np.ndarray[Any, Any]:
    """A photograph [1536, 600, 3] that has to be scaled down; from NASA, in the public domain."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut().repeat(3, axis=0).repeat(3, axis=1)[:, 400:1000])


def face_heads(tensors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """RetinaFace's weights with heads that see a face of 128 pixels everywhere, each a little different."""
    changed = dict(tensors)
    for level in range(3):
        for head, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            name = f"{head}.{level}.conv1x1"
            changed[f"{name}.weight"] = scale * tensors[f"{name}.weight"]
            bias = torch.zeros(2, values)
            if head == "ClassHead":
                bias[:, 0] = 8.0
                if level == 1:
                    bias[1] = torch.tensor([0.0, 8.0])
            if head == "LandmarkHead":
                bias[:] = 10 * torch.tensor(FACE_PATTERN).reshape(-1)
            changed[f"{name}.bias"] = bias.reshape(-1)
    return changed


def raw_heads(height: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random raw heads (boxes, probabilities, landmarks), a few of them confident."""
    count = sum(2 * -(-height // stride) * -(-width // stride) for stride in (8, 16, 32))
    generator = torch.Generator().manual_seed(seed)
    boxes, logits, landmarks = (2 * torch.randn(1, count, values, generator=generator) for values in (4, 2, 10))
    return boxes, logits.softmax(-1), landmarks


def write_detector(path: Path, faces: Sequence[tuple[Sequence[float], Sequence[Sequence[float]], float]]) -> None:
    """An SCRFD that always finds these faces (box, five points, score), in pixels of its 640×640 canvas."""
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    for values, kind in ((1, "score"), (4, "bbox"), (10, "kps")):
        for stride in (8, 16, 32):
            outputs[f"{kind}_{stride}"] = np.zeros((2 * (CANVAS // stride) ** 2, values), np.float32)
    for number, (box, points, score) in enumerate(faces):
        column, row = (int((box[axis] + box[axis + 2]) / 64) for axis in (0, 1))
        anchor, centre = 2 * (row * (CANVAS // 32) + column) + number % 2, np.array([column, row]) * 32.0
        outputs["score_32"][anchor] = score
        outputs["bbox_32"][anchor] = [*(centre - box[:2]), *(np.array(box[2:]) - centre)]
        outputs["kps_32"][anchor] = (np.array(points) - centre).reshape(-1)
    for name, table in outputs.items():
        if not name.startswith("score"):
            table /= 32
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_values"], [name]) for name in outputs],
        "detector",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["anchors", v.shape[1]])
            for name, v in outputs.items()
        ],
        [numpy_helper.from_array(table, f"{name}_values") for name, table in outputs.items()],
    )
    _save(graph, path)


def write_recogniser(path: Path) -> None:
    """An ArcFace of the right shape whose embedding is the crop itself, averaged to 512 numbers."""
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[7, 7], strides=[7, 7]),
            helper.make_node("Reshape", ["pooled", "flat"], ["all"]),
            helper.make_node("Slice", ["all", "start", "end", "axis"], ["embedding"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 512])],
        [
            numpy_helper.from_array(np.array(values, np.int64), name)
            for name, values in (("flat", [-1, 768]), ("start", [0]), ("end", [512]), ("axis", [1]))
        ],
    )
    _save(graph, path)


def import_reference() -> None:
    """Make torchvision's CUDA-linked wheel importable beside a CPU build of torch, with the operator facexlib calls."""
    with contextlib.suppress(RuntimeError):
        importlib.import_module("torchvision")
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    _LIBRARIES.append(library)
    import torchvision.ops.boxes  # type: ignore[import-not-found]

    torchvision.ops.boxes._assert_has_ops = lambda: None


_LIBRARIES: list[torch.library.Library] = []


def _nms(boxes: Tensor, scores: Tensor, limit: float) -> Tensor:
    order, kept = scores.argsort(descending=True, stable=True), []
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        order = order[shared / (area[best] + area[order] - shared) <= limit]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


def reference_aligner(narrow: bool) -> Any:
    """facexlib's RetinaFace; narrow: one block a stage, and necks of 32 channels, which leak."""
    import facexlib.detection.retinaface as source  # type: ignore[import-not-found]
    import torchvision.models as models  # type: ignore[import-not-found]

    if not narrow:
        return source.RetinaFace("resnet50", device=torch.device("cpu"))
    original = source.generate_config, models.resnet50
    source.generate_config = lambda name: original[0](name) | {"out_channel": 32}
    models.resnet50 = lambda pretrained: models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1])
    try:
        return source.RetinaFace("resnet50", device=torch.device("cpu"))
    finally:
        source.generate_config, models.resnet50 = original


def reference_helper(aligner: Any, parser: Any) -> Any:
    """facexlib's FaceRestoreHelper as the reference makes it, around these networks."""
    import facexlib.utils.face_restoration_helper as source  # type: ignore[import-not-found]

    source.init_detection_model = lambda *_, **__: aligner
    source.init_parsing_model = lambda *_, **__: None
    made = source.FaceRestoreHelper(
        upscale_factor=1,
        face_size=512,
        crop_ratio=(1, 1),
        det_model="retinaface_resnet50",
        save_ext="png",
        device=torch.device("cpu"),
    )
    made.face_parse = parser
    return made


def reference_tower(**sizes: int) -> Any:
    """consisid_eva_clip's vision tower with the published model's structure, in other sizes."""
    from consisid_eva_clip.factory import get_model_config  # type: ignore[import-not-found]
    from consisid_eva_clip.model import _build_vision_tower  # type: ignore[import-not-found]

    config = get_model_config("EVA02-CLIP-L-14-336")
    embed_dim = sizes.pop("embed_dim", config["embed_dim"])
    return _build_vision_tower(embed_dim, config["vision_cfg"] | sizes).eval()


def reference_faces(aligner: Any, parser: Any, tower: Any, folder: Path) -> dict[str, Any]:
    """The reference's whole face path on `portrait`.

    The detector finds a face where facexlib's choice is, so that both packages look at one face.
    """
    from consisid_eva_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD  # type: ignore[import-not-found]
    from diffusers.pipelines.consisid.consisid_utils import process_face_embeddings_infer, resize_numpy_image_long
    from insightface.app import FaceAnalysis

    image, made = portrait(), reference_helper(aligner, parser)
    made.read_image(np.ascontiguousarray(resize_numpy_image_long(image, 1024)[..., ::-1]))
    made.get_face_landmarks_5(only_center_face=True)
    box: list[float] = (np.asarray(made.det_faces[:4]) * CANVAS / 1024).round(1).tolist()
    labels: list[Tensor] = []
    hook = parser.register_forward_hook(lambda module, inputs, outputs: labels.append(outputs[0].argmax(1)))
    folder.mkdir(parents=True, exist_ok=True)
    write_detector(folder / "detector.onnx", [(box, points_in(box), 0.9)])
    write_recogniser(folder / "recogniser.onnx")
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=0, det_size=(640, 640))
    with torch.no_grad():
        identity, hidden, picture, keypoints = process_face_embeddings_infer(
            made, tower, None, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, app, "cpu", torch.float32, image
        )
    hook.remove()
    return {
        "box": np.array(box, np.float64),
        "landmarks": np.array(made.all_landmarks_5),
        "transforms": np.array(made.affine_matrices),
        "labels": labels[0].to(torch.uint8).numpy(),
        "identity": identity.numpy(),
        "hidden": torch.stack(hidden).numpy(),
        "portrait": np.asarray(picture),
        "keypoints": keypoints,
    }


def points_in(box: Sequence[float]) -> list[list[float]]:
    """Five points of a face in this box."""
    x0, y0, x1, y1 = box
    return [[(x0 + x1) / 2 + x * (x1 - x0), (y0 + y1) / 2 + y * (y1 - y0)] for x, y in FACE_PATTERN]


def _shapes(network: Any) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def _save(graph: onnx.GraphProto, path: Path) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _record() -> dict[str, Any]:
    from facexlib.parsing.bisenet import BiSeNet  # type: ignore[import-not-found]

    record: dict[str, Any] = {}
    shapes: dict[str, dict[str, list[int]]] = {}
    for name, narrow in (("aligner", False), ("aligner_narrow", True)):
        network = reference_aligner(narrow)
        shapes[name] = _shapes(network)
        network.load_state_dict(seeded(shapes[name], seed=1))
        image = torch.randn(1, 3, 97, 131, generator=torch.Generator().manual_seed(2)) * 64
        outputs = network(image)
        record |= {f"{name}_{part}": out.numpy(force=True)[:, ::3] for part, out in zip("bsl", outputs, strict=True)}
    narrow_aligner = network

    parser = BiSeNet(num_class=19).eval()
    shapes["parser"] = _shapes(parser)
    parser.load_state_dict(seeded(shapes["parser"], seed=3))
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(4))
    logits = parser(image)[0].detach()
    record |= {
        "parser_logits": logits[:, :, ::5, ::7].numpy(),
        "parser_labels": logits.argmax(1).to(torch.uint8).numpy(),
    }

    sizes = {"image_size": 56, "width": 96, "head_width": 32, "embed_dim": 48}
    tower = reference_tower(**sizes)
    shapes["clip"] = _shapes(tower)
    weights = {k: v for k, v in seeded(shapes["clip"], seed=5).items() if "freqs" not in k}
    tower.load_state_dict(weights, strict=False)
    image = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        embedding, hidden = tower(image, return_hidden=True)
    record |= {"clip_embedding": embedding.numpy(), "clip_hidden": torch.stack(hidden).numpy()}

    helper_ = reference_helper(narrow_aligner, None)
    original = type(narrow_aligner).forward
    type(narrow_aligner).forward = lambda self, image: raw_heads(image.shape[2], image.shape[3], 7)
    record["detections"] = narrow_aligner.detect_faces(photo(160, 224, 8), 0.97)
    type(narrow_aligner).forward = original

    helper_.read_image(photo(300, 400, 9))
    points = np.array([[140, 120], [212, 128], [176, 166], [150, 210], [204, 214]], np.float32)
    helper_.all_landmarks_5 = [points, points * 0.4 - 20]
    helper_.align_warp_face()
    record["transforms"] = np.stack(helper_.affine_matrices)
    record["crops"] = np.stack(helper_.cropped_faces)[:, 8::16, 8::16]

    narrow_aligner.load_state_dict(face_heads(seeded(shapes["aligner_narrow"], seed=1), scale=1e-4))
    with tempfile.TemporaryDirectory() as folder:
        whole = reference_faces(narrow_aligner, parser, tower, Path(folder) / "pack")
    whole["portrait"] = whole["portrait"][4::8, 4::8]
    record |= {f"whole_{name}": value for name, value in whole.items()}
    record["shapes"] = np.array(json.dumps(shapes))
    return record


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):
        import_reference()
        values = _record()
    np.savez_compressed(RECORD, **values)
    for key, value in values.items():
        print(key, value.shape, value.dtype)
    print(f"{RECORD.name}: {RECORD.stat().st_size / 1000:.0f} kB")
