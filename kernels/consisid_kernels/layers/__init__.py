"""Everything between attentions: modulation, feed-forward, the solver's step, the VAE's normalisation."""
