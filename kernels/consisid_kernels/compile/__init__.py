"""Compiling kernels without a GPU: costs and budgets, PTX for TensorRT's plugins."""
