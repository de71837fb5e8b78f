"""Lines on standard error. No prompt, portrait or name is in one."""

from __future__ import annotations

import logging
import sys

_OURS = "consisid_gateway"
_THEIRS = ("uvicorn", "dbos", "sqlalchemy")


def write_logs(level: str) -> None:
    """From this level on; of other packages only what went wrong."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="WARNING")
    logging.getLogger(_OURS).setLevel(level.upper())
    for name in _THEIRS:
        logging.getLogger(name).setLevel("WARNING")
