from consisid_runtime.serving import DenoiseModel as TritonPythonModel  # noqa: F401
