from consisid_runtime.serving import DecodeModel as TritonPythonModel  # noqa: F401
