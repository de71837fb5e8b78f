from consisid_runtime.serve.models import FaceModel as TritonPythonModel  # noqa: F401
