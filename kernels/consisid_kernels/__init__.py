"""GPU kernels in Triton's language for the denoising step and the VAE's decoder.

At the root: the specification (`reference`), the operators (`ops`), and what kernels share (`variant`, `launch`,
`tiles/`). `attention` and `layers` hold the kernels, `compile` the ahead-of-time compilation. Nothing here imports the
networks: operators take tensors.
"""
