from consisid_runtime.serving import FaceModel as TritonPythonModel  # noqa: F401
