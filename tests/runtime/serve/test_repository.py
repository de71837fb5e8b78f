from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from consisid_runtime.serve.repository import repository, write_repository
from consisid_runtime.signatures import ENSEMBLE, Signature
from consisid_runtime.stages.table import STAGES

COMMITTED = Path(__file__).parents[3] / "model_repository"
MODELS = {signature.name: signature for signature in (*(stage.signature for stage in STAGES), ENSEMBLE)}


def parse(name: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse((COMMITTED / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_committed_files_are_the_generated_ones() -> None:
    committed = {
        str(path.relative_to(COMMITTED)): path.read_text()
        for path in COMMITTED.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert committed == repository(), "run `python -m consisid_runtime.serve.repository model_repository`"


def test_writing_gives_every_file(tmp_path: Path) -> None:
    write_repository(tmp_path)
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == repository()


@pytest.mark.parametrize("signature", MODELS.values(), ids=MODELS)
def test_config_says_what_the_signature_says(signature: Signature) -> None:
    config = parse(signature.name)
    assert (config.name, config.max_batch_size) == (signature.name, 0)
    for ports, tensors in ((signature.inputs, config.input), (signature.outputs, config.output)):
        assert [p.name for p in ports] == [t.name for t in tensors]
        for port, tensor in zip(ports, tensors, strict=True):
            assert list(tensor.dims) == [size if isinstance(size, int) else -1 for size in port.shape]
            kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
            assert {"STRING": "BYTES"}.get(kind, kind) == port.dtype


@pytest.mark.parametrize("stage", [stage.signature for stage in STAGES], ids=lambda stage: stage.name)
def test_stages_leave_devices_to_the_engines(stage: Signature) -> None:
    config = parse(stage.name)
    (group,) = config.instance_group
    assert (config.backend, group.kind, group.count) == ("python", group.KIND_CPU, 1)


def test_every_tensor_of_the_ensemble_has_exactly_one_source() -> None:
    config = parse(ENSEMBLE.name)
    made = [port.name for port in config.input]
    for step in config.ensemble_scheduling.step:
        assert set(step.input_map) == {p.name for p in MODELS[step.model_name].inputs if not p.optional}
        made += step.output_map.values()
    assert len(made) == len(set(made))
    used = {name for step in config.ensemble_scheduling.step for name in step.input_map.values()}
    assert used | {port.name for port in config.output} <= set(made)
    assert set(made) <= used | {port.name for port in config.output}
