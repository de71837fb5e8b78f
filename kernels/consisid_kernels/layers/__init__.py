"""All other kernels: the transformer's modulation and linear layers, the norm of the VAE decoder."""
