"""The tables of settings: names, bounds, defaults and meanings from the model, flags from the command."""

from __future__ import annotations

from consisid_runtime.settings.groups import GROUPS, Group
from consisid_runtime.settings.kinds import accepts
from generators.commands import flags, leaves
from generators.markdown import table


def settings_table() -> str:
    """Markdown: a section for each group with a row for each setting."""
    return "\n\n".join(f"### {group.__doc__}\n\n{_rows(group)}" for group in GROUPS)


def _rows(group: type[Group]) -> str:
    shown = {parameter.name: flags(parameter) for parameter in leaves()["serve"].params}
    rows = [
        [f"`{name}`", shown.get(name, ""), _default(field.default), accepts(field), field.description or ""]
        for name, field in group.model_fields.items()
    ]
    return table(["setting", "flag", "default", "values", "meaning"], rows)


def _default(value: object) -> str:
    if value is None:
        return "not set"
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
    return f"`{shown}`"
