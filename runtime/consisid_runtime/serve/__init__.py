"""Serving a bundle with NVIDIA's Triton server: the process and its supervision, the models, the model repository.

`models` runs inside the server, everything else beside it.
"""
