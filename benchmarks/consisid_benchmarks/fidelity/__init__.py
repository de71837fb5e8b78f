"""How faithful videos are: to the person, to the prompt, to a reference. Nothing heavy is imported before it runs."""

from consisid_benchmarks.fidelity.cli import SUITE, VIDEOS, command, videos_command

__all__ = ["SUITE", "VIDEOS", "command", "videos_command"]
