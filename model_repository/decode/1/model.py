from consisid_runtime.serve.models import DecodeModel as TritonPythonModel  # noqa: F401
