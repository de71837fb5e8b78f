"""Reads names on standard input, one a line; prints those that a TensorRT binding lacks.

    python tensorrt_names.py MODULE [FOLDER]

MODULE is imported, from FOLDER where given: full TensorRT's bindings load over empty libraries, found on the loader's
path, because nothing is called. A name is a dotted path such as `Builder.create_network`.
"""

import importlib
import os
import sys


def main() -> None:
    sys.path[:0] = sys.argv[2:]
    library = importlib.import_module(sys.argv[1])
    print("version", library.__version__)
    for name in sys.stdin.read().split():
        found: object = library
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None:
            print(name)
    sys.stdout.flush()
    # The empty libraries have nothing to clean up with.
    os._exit(0)


if __name__ == "__main__":
    main()
