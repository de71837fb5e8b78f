from consisid_runtime.serve.models import served

TritonPythonModel = served("encode")
