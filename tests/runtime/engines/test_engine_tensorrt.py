"""The TensorRT engine: all but TensorRT itself on a CPU, with a library that doubles; the real thing marked `gpu`."""

import ctypes
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from consisid_export.onnx.samples import sample_inputs
from consisid_export.tensorrt.build import build_engine
from consisid_export.tensorrt.ranges import profiles, relevant
from consisid_export.verify.module import relative_error
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines import tensorrt as subject
from consisid_runtime.engines.tensorrt import TensorRTEngine
from consisid_runtime.errors import BundleCorrupt, BundleVersion, InvalidOption, MissingExtra
from consisid_runtime.signatures import Port, Signature

SIGNATURE = Signature(
    "doubler", (Port("x", "FP32", ("branches", 3)),), (Port("y", "FP32", ("branches", 3)), Port("z", "FP32", (1,)))
)
RECORD: dict[str, Any] = {
    "library": "tensorrt",
    "version": "11.4.0.106",
    "architectures": ["sm_90"],
    "profiles": [{"x": [[2, 3], [2, 3], [2, 3]]}, {"x": [[1, 3], [1, 3], [1, 3]]}],
}
WORKSPACE = 256


class Context:
    """Doubles x into y and counts its calls in z, by the addresses it is given."""

    def __init__(self, calls: list[str]) -> None:
        self.calls, self.active_optimization_profile, self.runs = calls, 0, 0
        self.shapes: dict[str, tuple[int, ...]] = {"z": (1,)}
        self.addresses: dict[str, int] = {}
        self.memory = (0, 0)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.calls.append(f"profile {index} on {stream}")
        self.active_optimization_profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = self.shapes["y"] = shape
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return WORKSPACE

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory[0]
        assert self.memory[1] == WORKSPACE
        self.runs += 1
        self.calls.append(f"run on {stream}")
        self._array("y")[...] = 2 * self._array("x")
        self._array("z")[...] = self.runs
        return True

    def _array(self, name: str) -> Any:
        count = int(np.prod(self.shapes[name]))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))


class Library:
    """What the engine uses of TensorRT."""

    __version__ = "11.4.0.106"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.contexts: list[Context] = []
        self.loadable = True
        self.EngineStat = SimpleNamespace(TOTAL_WEIGHTS_SIZE="weights")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="by the user")

    def Runtime(self, log: object) -> Any:
        def deserialize_cuda_engine(plan: Any) -> Any:
            assert bytes(plan) == b"plan"
            return self.engine() if self.loadable else None

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)

    def engine(self) -> Any:
        def create_execution_context(strategy: str) -> Context:
            assert strategy == "by the user"
            self.contexts.append(Context(self.calls))
            return self.contexts[-1]

        return SimpleNamespace(
            create_execution_context=create_execution_context,
            get_tensor_dtype=lambda name: SimpleNamespace(name="FLOAT"),
            get_engine_stat=lambda stat: {"weights": 5 * 2**20}[stat],
            device_memory_size_v2=3 * 2**20,
        )


class Stream:
    def __init__(self, handle: int = 9) -> None:
        self.cuda_stream = handle
        self.waits: list[int] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waits.append(other.cuda_stream)

    def synchronize(self) -> None:
        pass


class Cuda:
    """PyTorch's `cuda` as far as the engine asks it: one free GPU of compute capability 9.0."""

    def __init__(self) -> None:
        self.stream_now = Stream(7)
        self.free = 2**30
        self.graph_context: Context | None = None
        self.replays = 0

    def Stream(self) -> Stream:
        return Stream()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def get_device_capability(self, device: object) -> tuple[int, int]:
        return (9, 0)

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return self.free, 2**31

    def empty_cache(self) -> None:
        pass

    def device(self, device: object) -> Any:
        return nullcontext()

    def stream(self, stream: Stream) -> Any:
        return nullcontext()

    def current_stream(self) -> Stream:
        return self.stream_now

    def CUDAGraph(self) -> Any:
        def replay() -> None:
            assert self.graph_context is not None
            self.replays += 1
            self.graph_context.execute_async_v3(0)

        return SimpleNamespace(replay=replay)

    def graph(self, graph: object, *, stream: Stream, capture_error_mode: str) -> Any:
        return nullcontext()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    monkeypatch.setattr(subject, "cuda", fake)
    monkeypatch.setattr(subject, "_cuda_device", lambda name: torch.device("cpu"))
    return fake


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> Library:
    fake = Library()
    monkeypatch.setattr(subject, "load", lambda name: (name, fake))
    monkeypatch.setattr(subject, "log_of", lambda trt: SimpleNamespace(lines=["ERROR: no room"]))
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "doubler.engine").write_bytes(b"plan")
    return tmp_path / "doubler.engine"


@pytest.fixture
def engine(library: Library, plan: Path) -> TensorRTEngine:
    return TensorRTEngine(plan, SIGNATURE, RECORD)


def test_tensors_are_bound_by_name_where_they_lie(engine: TensorRTEngine, library: Library) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    outputs = engine({"x": x})
    assert list(outputs) == ["y", "z"]
    torch.testing.assert_close(outputs["y"], 2 * x, rtol=0, atol=0)
    (context,) = library.contexts
    assert context.addresses == {"x": x.data_ptr()} | {name: tensor.data_ptr() for name, tensor in outputs.items()}


def test_an_output_is_not_overwritten_by_the_next_call(engine: TensorRTEngine) -> None:
    first = engine({"x": torch.ones(2, 3)})
    engine({"x": torch.zeros(2, 3)})
    assert first["y"].eq(2).all()


def test_strided_and_double_inputs_are_made_what_the_engine_reads(engine: TensorRTEngine) -> None:
    x = torch.arange(6, dtype=torch.float64).reshape(3, 2).T
    torch.testing.assert_close(engine({"x": x})["y"], 2 * x.float(), rtol=0, atol=0)


def test_the_profile_follows_the_shape(engine: TensorRTEngine, library: Library) -> None:
    for branches in (2, 1, 1, 2):
        assert engine({"x": torch.ones(branches, 3)})["y"].shape == (branches, 3)
    assert [call for call in library.calls if "profile" in call] == ["profile 1 on 7", "profile 0 on 7"]


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (2, 3, 1)], ids=str)
def test_a_shape_outside_of_the_profiles_is_refused(engine: TensorRTEngine, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidOption, match=r"doubler: x has shape .*built for \[2, 3\] or \[1, 3\]; for other sizes"):
        engine({"x": torch.ones(shape)})


def test_each_stream_has_its_own_context(engine: TensorRTEngine, library: Library, cuda: Cuda) -> None:
    for handle in (7, 8, 7):
        cuda.stream_now = Stream(handle)
        engine({"x": torch.ones(2, 3)})
    assert len(library.contexts) == 2
    assert [call for call in library.calls if "run" in call] == ["run on 7", "run on 8", "run on 7"]


def test_the_default_stream_is_left_for_one_of_its_own(engine: TensorRTEngine, library: Library, cuda: Cuda) -> None:
    cuda.stream_now = caller = Stream(0)
    engine({"x": torch.ones(2, 3)})
    assert library.calls == ["run on 9"]
    assert caller.waits == [9]


@pytest.fixture
def captured(library: Library, plan: Path, cuda: Cuda) -> TensorRTEngine:
    """An engine that captures; replaying runs its context again, on the addresses it was recorded with."""
    engine = TensorRTEngine(plan, SIGNATURE, RECORD, capture=True)
    cuda.graph_context = engine._context(cuda.stream_now)  # type: ignore[arg-type]
    return engine


def test_a_captured_call_is_replayed_with_new_inputs(captured: TensorRTEngine, library: Library, cuda: Cuda) -> None:
    inputs = [torch.full((2, 3), float(value)) for value in (1, 2, 3)]
    outputs = [captured({"x": x})["y"] for x in inputs]
    assert [float(y[0, 0]) for y in outputs] == [2, 4, 6]
    assert cuda.replays == 3
    assert len([call for call in library.calls if call == "run on 7"]) == 2  # to set up, and while recording
    assert library.contexts[0].addresses["x"] not in {x.data_ptr() for x in inputs}


def test_another_shape_is_captured_again(captured: TensorRTEngine, library: Library) -> None:
    for branches in (2, 1, 2):
        assert captured({"x": torch.ones(branches, 3)})["y"].eq(2).all()
    assert [call for call in library.calls if "profile" in call] == ["profile 1 on 7", "profile 0 on 7"]


def test_tensors_may_have_other_names_in_the_engine(library: Library, plan: Path) -> None:
    bindings = {"x": "arg0", "y": "output0", "z": "output1"}

    class Renamed(Context):
        def __init__(self, calls: list[str]) -> None:
            super().__init__(calls)
            self.shapes["output1"] = (1,)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shapes[name] = self.shapes["output0"] = shape
            return True

        def _array(self, name: str) -> Any:
            return super()._array(bindings[name])

    found = library.engine()
    found.create_execution_context = lambda strategy: Renamed(library.calls)
    library.engine = lambda: found  # type: ignore[method-assign]
    engine = TensorRTEngine(plan, SIGNATURE, RECORD | {"bindings": bindings})
    assert engine({"x": torch.ones(2, 3)})["y"].eq(2).all()


def test_device_memory_is_told_before_it_is_taken(
    library: Library, plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=subject.__name__):
        engine = TensorRTEngine(plan, SIGNATURE, RECORD)
    assert engine.device_memory == {"weights": 5 * 2**20, "activations": 3 * 2**20}
    assert caplog.messages == [
        "doubler: loading 0.0 MiB, 1024.0 MiB of device memory are free",
        "doubler: 5.0 MiB of weights, up to 3.0 MiB while it runs",
    ]
    assert not library.contexts


def test_too_little_memory_is_said_before_loading(library: Library, plan: Path, cuda: Cuda) -> None:
    cuda.free = 3
    library.loadable = False
    with pytest.raises(
        torch.OutOfMemoryError, match="doubler: the engine takes 0 MiB of device memory, 0 MiB are free"
    ):
        TensorRTEngine(plan, SIGNATURE, RECORD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"version": "11.3.0.99"},
            r"built with tensorrt 11\.3\.0\.99, here is 11\.4\.0\.106; export .*tensorrt==11\.3",
        ),
        ({"architectures": ["sm_89", "sm_120"]}, r"built for sm_89, sm_120, this GPU is sm_90; export"),
    ],
    ids=["version", "architecture"],
)
def test_a_foreign_engine_is_refused(library: Library, plan: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleVersion, match=message):
        TensorRTEngine(plan, SIGNATURE, RECORD | change)


def test_an_engine_that_does_not_load_is_refused_with_the_reason(library: Library, plan: Path) -> None:
    library.loadable = False
    with pytest.raises(BundleCorrupt, match=r"doubler\.engine: TensorRT cannot load(.|\n)*ERROR: no room"):
        TensorRTEngine(plan, SIGNATURE, RECORD)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the driver that must be missing is here")
def test_a_real_engine_gets_as_far_as_the_driver(cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX builds without a GPU and takes the engine back, but cannot load it without a driver."""
    ports = Port("x", "FP32", (2, 3)), Port("y", "FP32", (2, 3))
    values = [helper.make_tensor_value_info(port.name, TensorProto.FLOAT, port.shape) for port in ports]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), tmp_path / "x.onnx")
    signature = Signature("relu", ports[:1], ports[1:])
    record = build_engine(tmp_path / "x.onnx", signature, ({},), tmp_path / "x.engine", library="tensorrt-rtx")
    monkeypatch.setattr(cuda, "get_device_capability", lambda device: (8, 9))
    with pytest.raises(BundleCorrupt, match=r"x\.engine: TensorRT cannot load(.|\n)*CUDA driver"):
        TensorRTEngine(tmp_path / "x.engine", signature, record)


def test_a_failed_call_carries_the_reason(engine: TensorRTEngine, library: Library, monkeypatch: Any) -> None:
    monkeypatch.setattr(Context, "execute_async_v3", lambda self, stream: False)
    with pytest.raises(RuntimeError, match=r"doubler: TensorRT could not run\n  ERROR: no room"):
        engine({"x": torch.ones(2, 3)})


def test_a_cpu_is_refused(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="NVIDIA GPUs only, got device 'cpu'"):
        TensorRTEngine(plan, SIGNATURE, RECORD, device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingExtra, match="needs an NVIDIA GPU and a CUDA build of PyTorch"):
        TensorRTEngine(plan, SIGNATURE, RECORD)


# on a GPU, with the library that is installed

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MODULES = (
    "aligner",
    "parser",
    "clip",
    "local_extractor",
    "text_encoder",
    "vae_encoder",
    "vae_decoder_first",
    "vae_decoder_next",
    "dit_prepare",
    "dit_modulate",
    "dit_step",
)


@pytest.fixture
def exact_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def built(
    untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Signature, Any]]:
    """Engine file, signature and record of a module, built for this GPU from the bundle's float32 graph."""
    folder = tmp_path_factory.mktemp("engines")
    bundle = Bundle.open(untrained_bundle)

    def build(module: str) -> tuple[Path, Signature, Any]:
        from consisid_runtime.engines.tensorrt_library import load

        name, _ = load()
        capability = "SM{}{}".format(*torch.cuda.get_device_capability())
        signature = bundle.signature(module)
        path = folder / f"{module}.engine"
        targets = None if name == "tensorrt" else (capability,)
        graph = untrained_bundle / f"{module}.onnx"
        record = build_engine(graph, signature, bundle.config.geometry, path, compute_capabilities=targets)
        return path, signature, record

    return build


def samples(untrained_bundle: Path, signature: Signature, seed: int = 0) -> dict[str, Tensor]:
    profile = relevant(signature, profiles(Bundle.open(untrained_bundle).config.geometry))[0]
    sizes = {symbol: extent.optimum for symbol, extent in profile.items()}
    return sample_inputs(signature, sizes, seed=seed)


class TestOnGpu:
    pytestmark = on_gpu

    @pytest.mark.usefixtures("exact_float32")
    @pytest.mark.parametrize("module", MODULES)
    def test_an_engine_is_at_most_twice_as_far_as_pytorch(
        self, built: Callable[..., Any], untrained: Path, untrained_bundle: Path, module: str
    ) -> None:
        """PyTorch's own float32 on this GPU, against float32 on the CPU, is the error that an engine may double."""
        from consisid_export.checkpoint.checkpoint import Checkpoint
        from consisid_runtime.models import networks

        path, signature, record = built(module)
        inputs = samples(untrained_bundle, signature)
        network = networks.load(module, Checkpoint.open(untrained))
        with torch.no_grad():
            exact = network(*inputs.values())
            there = network.cuda()(*(tensor.cuda() for tensor in inputs.values()))
        exact, there = ((found,) if isinstance(found, Tensor) else found for found in (exact, there))
        found = TensorRTEngine(path, signature, record)({name: tensor.cuda() for name, tensor in inputs.items()})
        for port, wanted, torchs in zip(signature.outputs, exact, there, strict=True):
            allowed = 2 * relative_error(torchs.cpu(), wanted) + 1e-6
            assert relative_error(found[port.name].cpu(), wanted) <= allowed, port.name

    def test_capture_changes_nothing(self, built: Callable[..., Any], untrained_bundle: Path) -> None:
        path, signature, record = built("dit_step")
        plain = TensorRTEngine(path, signature, record)
        captured = TensorRTEngine(path, signature, record, capture=True)
        for seed in range(3):
            inputs = {name: tensor.cuda() for name, tensor in samples(untrained_bundle, signature, seed).items()}
            assert torch.equal(captured(inputs)["velocity"], plain(inputs)["velocity"])

    def test_calls_on_other_streams_see_their_inputs(self, built: Callable[..., Any], untrained_bundle: Path) -> None:
        path, signature, record = built("dit_prepare")
        engine = TensorRTEngine(path, signature, record)
        inputs = {name: tensor.cuda() for name, tensor in samples(untrained_bundle, signature).items()}
        wanted = engine(inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = {name: tensor.clone() for name, tensor in inputs.items()}
            found = engine(late)
        stream.synchronize()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def test_memory_is_as_told(self, built: Callable[..., Any]) -> None:
        path, signature, record = built("dit_step")
        engine = TensorRTEngine(path, signature, record)
        assert 0 < engine.device_memory["weights"] <= path.stat().st_size
        assert engine.device_memory["activations"] > 0
