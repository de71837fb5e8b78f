from consisid_runtime.serve.stream.model import StreamModel

TritonPythonModel = StreamModel
