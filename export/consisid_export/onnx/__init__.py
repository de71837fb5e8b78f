"""From a network to an ONNX graph: tracing, precision, quantisation, where the weights lie. Runs no graph."""
