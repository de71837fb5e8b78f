"""A request for inference as gRPC's message: what every caller of ours sends."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from tritonclient.grpc import service_pb2

from consisid_runtime.client.transport import Parameters

_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def infer_request(
    model: str, inputs: Mapping[str, bytes | str], parameters: Parameters, outputs: Sequence[str]
) -> service_pb2.ModelInferRequest:
    """Bytes become UINT8 [n], text BYTES [1]."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in inputs.items():
        if isinstance(value, str):
            text = value.encode()
            request.inputs.add(name=name, datatype="BYTES", shape=[1])
            request.raw_input_contents.append(struct.pack("<I", len(text)) + text)
        else:
            request.inputs.add(name=name, datatype="UINT8", shape=[len(value)])
            request.raw_input_contents.append(value)
    for name in outputs:
        request.outputs.add(name=name)
    for name, option in parameters.items():
        # bool first: it is an int too.
        kind = next(field for type_, field in _FIELDS.items() if isinstance(option, type_))
        setattr(request.parameters[name], kind, option)
    return request
