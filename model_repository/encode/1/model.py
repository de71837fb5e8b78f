from consisid_runtime.serving import EncodeModel as TritonPythonModel  # noqa: F401
