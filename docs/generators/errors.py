"""The tables of errors and exit codes, from the error classes."""

from __future__ import annotations

import consisid_fidelity.errors  # noqa: F401  it defines subclasses, as the next one
import consisid_gateway.errors  # noqa: F401
from consisid_runtime.errors import ConsisIDError, all_errors, exit_codes
from generators.markdown import table


def error_table() -> str:
    """Markdown: a row for each code."""
    head = ["code", "meaning", "what to do", "HTTP", "gRPC", "exit"]
    rows = [
        [f"`{kind.code}`", meaning(kind), kind.remedy, str(kind.http), kind.grpc, str(kind.exit)]
        for kind in all_errors()
    ]
    return table(head, rows)


def exit_table() -> str:
    """Markdown: a row for each exit code of the command."""
    meanings = {0: "Done.", 2: "The command was used wrongly."} | exit_codes()
    return table(["exit code", "meaning"], [[str(code), meanings[code]] for code in sorted(meanings)])


def error_tree() -> str:
    """Markdown: the error classes as a nested list."""
    return "\n".join(_lines(ConsisIDError, ""))


def meaning(kind: type[ConsisIDError]) -> str:
    """The first line of the class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]


def _lines(kind: type[ConsisIDError], indent: str) -> list[str]:
    lines = [f"{indent}- `{kind.__name__}`: {meaning(kind)}"]
    for child in kind.__subclasses__():
        lines += _lines(child, indent + "  ")
    return lines
