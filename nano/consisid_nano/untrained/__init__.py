"""The untrained nano checkpoint: ConsisID's architecture with random weights and hand-made face networks."""
