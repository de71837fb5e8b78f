"""Runs the torch engine on tensors that claim to be on CUDA, without a GPU, and counts what a GPU would do.

Tensors on "cuda" are fake: they have shapes and no memory. Those on the CPU are real, so that the project's own
branches are taken. `budgets.json` has the counts of every stage, which `python -m consisid_benchmarks.fake_gpu.budgets`
derives.

It sees no numerics, races, library kernels (cuBLAS, cuDNN: their workspaces and their registers) nor time.
"""
