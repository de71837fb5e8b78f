"""Trains nano and its judges, one resumable training run a module.

`run` executes all of them in order. Layers: `data` and `loop` below `faces`, then `judges` and `video`; `onnx_files` is
below `faces`, the other modules here are above all folders.
"""
