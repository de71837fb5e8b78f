"""Model repositories for a Triton server of the user's own."""
