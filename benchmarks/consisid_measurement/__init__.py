"""What every measurement shares: the harness, the record it writes, the machine it ran on, plots."""
