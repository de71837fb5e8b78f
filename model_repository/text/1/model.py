from consisid_runtime.serving import TextModel as TritonPythonModel  # noqa: F401
