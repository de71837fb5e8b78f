"""The tables of settings: names, bounds, defaults and meanings from the model, flags from the command."""

from __future__ import annotations

from consisid_gateway.settings.settings import GatewaySettings, WorkerSettings
from consisid_runtime.settings.base import CommandSettings, Group
from consisid_runtime.settings.kinds import accepts
from consisid_runtime.settings.settings import Settings
from generators.commands import flags, leaves
from generators.markdown import table


def serve_table() -> str:
    """Markdown: those of `consisid serve`."""
    return _table(Settings, "serve")


def gateway_table() -> str:
    """Markdown: those of `consisid gateway`."""
    return _table(GatewaySettings, "gateway")


def worker_table() -> str:
    """Markdown: those of `consisid worker`."""
    return _table(WorkerSettings, "worker")


def _table(kind: type[CommandSettings], command: str) -> str:
    """A section for each group with a row for each setting."""
    return "\n\n".join(f"### {group.__doc__}\n\n{_rows(group, command)}" for group in kind.groups)


def _rows(group: type[Group], command: str) -> str:
    shown = {parameter.name: flags(parameter) for parameter in leaves()[command].params}
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
