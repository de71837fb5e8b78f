"""The table of options: names and defaults from `Options`, flags from the command, limits from the error messages."""

from __future__ import annotations

import re
from dataclasses import fields

from griffe import Docstring, DocstringSectionAttributes, Parser

from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options
from generators.commands import flags, leaves
from generators.markdown import table


def option_table() -> str:
    """Markdown: a row for each option of a request."""
    shown = {parameter.name: flags(parameter) for parameter in leaves()["generate"].params}
    meanings = _meanings()
    head = ["option and request parameter", "flag", "default", "values", "meaning"]
    rows = [
        [f"`{each.name}`", shown[each.name], _default(each.default), _values(each.name), meanings[each.name]]
        for each in fields(Options)
    ]
    return table(head, rows)


def _meanings() -> dict[str, str]:
    sections = Docstring(Options.__doc__ or "").parse(Parser.google)
    (attributes,) = (section for section in sections if isinstance(section, DocstringSectionAttributes))
    return {each.name: " ".join(each.description.split()) for each in attributes.value}


def _default(value: object) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value!r}`"


def _values(name: str) -> str:
    """What the option accepts, as the error for an impossible value states it."""
    try:
        Options.from_mapping({name: object()})
    except InvalidOption as error:
        if found := re.fullmatch(rf"{name} must be (.*), got .*", str(error)):
            return found[1]
    raise ValueError(f"the error of the option {name} does not state its values")
