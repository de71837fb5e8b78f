"""HTTP: one connection a call, KServe's JSON with binary tensors in it."""
