"""GPU kernels in Triton's language, the PyTorch specification that they are tested against, and their compilation."""
