"""All other kernels: the transformer's modulation and linear layers, the solver's step, the norm of the VAE decoder."""
