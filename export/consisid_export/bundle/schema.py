"""Writes the names from the tables of engines and builders into the manifest's JSON Schema.

`python -m consisid_export.bundle.schema SCHEMA` rewrites the file in place.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from consisid_export.bundle.builders import BUILDERS
from consisid_runtime.engines.table import ENGINES, PRECISIONS
from consisid_runtime.engines.tensorrt_library import LIBRARIES
from consisid_runtime.tiers import TIERS


def with_names(schema: str) -> str:
    """The schema's text with every enumeration that a table decides."""
    tables: dict[str, Iterable[str]] = {
        "engine": ENGINES,
        "builder": BUILDERS,
        "precision": PRECISIONS,
        "library": LIBRARIES,
        "tier": TIERS,
    }
    for name, table in tables.items():
        enumeration = f'"{name}": {{"enum": {json.dumps(list(table))}'
        schema, found = re.subn(rf'"{name}": {{"enum": \[[^\]]*\]', enumeration, schema)
        if found != 1:
            raise ValueError(f"the schema has {found} enumerations {name!r}; wanted one")
    return schema


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_names(path.read_text()))
