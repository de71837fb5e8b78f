from consisid_runtime.serve.models import EncodeModel as TritonPythonModel  # noqa: F401
