"""``python -m tinybilevel``, which is ``tinybilevel`` where scripts are not on the path."""

import sys

from tinybilevel.cli import main

if __name__ == "__main__":
    sys.exit(main())
