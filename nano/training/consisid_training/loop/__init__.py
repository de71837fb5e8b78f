"""The training loop, which can be stopped and resumed at any step, its optimiser and devices."""
