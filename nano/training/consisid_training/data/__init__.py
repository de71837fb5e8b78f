"""Training data: drawn clips, and pictures for the face networks."""
