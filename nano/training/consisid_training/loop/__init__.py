"""The resumable training loop, its optimiser and its device. Imports nothing else of this package."""
