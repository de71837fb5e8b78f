"""All other kernels: the transformer's modulation and feed-forward, the solver's step, the norm of the VAE decoder."""
