"""Where the `decant` command begins: a module by a name that no user's module will have.

Folders in PYTHONPATH come before installed packages, so that a `preprocess.py` in one of them would be taken for ours.
"""

import sys
from importlib import import_module
from pathlib import Path

_HOME = str(Path(__file__).resolve().parent)


def main() -> None:
    """Import our packages from where this module lies, whatever else goes by their names; then run the command."""
    sys.path.insert(0, _HOME)
    for package in ("preprocess", "cache_store", "loaders"):
        import_module(package)  # they are lazy: nothing but their names is loaded
    sys.path.remove(_HOME)  # among installed packages the other libraries keep their order
    import_module("preprocess.cli").main()
