"""`consisid serve` with other limits, as JSON in FAULT_LIMITS: no test waits for two minutes."""

from __future__ import annotations

import functools
import json
import os

from consisid_runtime.cli.main import main
from consisid_runtime.door import limits

limits.Limits = functools.partial(limits.Limits, **json.loads(os.environ["FAULT_LIMITS"]))  # type: ignore[assignment,misc]

if __name__ == "__main__":
    main()
