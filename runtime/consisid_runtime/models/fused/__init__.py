"""Networks as they run on fused operators: `consisid_kernels.ops`, or `reference`, their specification."""
