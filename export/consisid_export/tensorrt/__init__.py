"""From an ONNX graph or a PyTorch module to a TensorRT engine: sizes, graph rewrites, plugins, the build."""
