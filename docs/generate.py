"""Writes the sections of pages that derive from the code: `python docs/generate.py`, as `make generate` does.

A section lies between <!-- NAME --> and <!-- /NAME -->.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generators.commands import command_reference
from generators.engines import engine_table
from generators.errors import error_table, error_tree, exit_table
from generators.memory import memory_table
from generators.options import option_table
from generators.python_api import python_api
from generators.scaling import day_table, device_table, load_table, operation_table, worker_table
from generators.settings import gateway_table, serve_table
from generators.settings import worker_table as settings_of_workers
from generators.tensors import tensor_table
from generators.threats import protected_table, unprotected_table, who_table
from generators.tree import folder_table, module_table

DOCS = Path(__file__).parent

SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "commands.md": {"commands": command_reference},
    "errors.md": {"errors": error_table, "exit-codes": exit_table},
    "installing.md": {"memory": memory_table},
    "life-of-a-request.md": {"modules": module_table, "folders": folder_table, "tensors": tensor_table},
    "options.md": {"options": option_table},
    "python-api.md": {"python-api": python_api, "error-classes": error_tree},
    "scaling.md": {
        "operations": operation_table,
        "gateway": load_table,
        "devices": device_table,
        "workers": worker_table,
        "days": day_table,
    },
    "settings.md": {"settings": serve_table, "gateway": gateway_table, "worker": settings_of_workers},
    "support.md": {"engines": engine_table},
    "threats.md": {"who": who_table, "protected": protected_table, "unprotected": unprotected_table},
}
"""Page → section → its content."""


def generated(page: str) -> str:
    """The text of a page with its sections as the code has them. Raises `ValueError` for a section without markers."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, content in SECTIONS[page].items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{page} needs {begin} and {end} once each")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content()}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> None:
    """Rewrite every page of `SECTIONS`."""
    for page in SECTIONS:
        (DOCS / page).write_text(generated(page), encoding="utf-8")


if __name__ == "__main__":
    main()
