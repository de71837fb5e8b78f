from consisid_runtime.serve.models import TextModel as TritonPythonModel  # noqa: F401
