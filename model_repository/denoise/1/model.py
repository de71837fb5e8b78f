from consisid_runtime.serve.models import DenoiseModel as TritonPythonModel  # noqa: F401
