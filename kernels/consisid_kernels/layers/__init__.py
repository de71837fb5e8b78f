"""All other kernels: the transformer's modulation and feed-forward, the norm of the VAE decoder."""
