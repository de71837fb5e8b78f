"""From a checkpoint to a bundle: read, trace, build, compare, write. Nothing here is imported by the runtime.

`cli` → `bundle` → `verify`, `tensorrt` → `onnx` → `checkpoint`; `repository` writes model repositories.
"""
