r"""So that ``python -m matheron.cli`` is the command ``matheron``."""

from . import main

if __name__ == "__main__":
    main()
