"""``bigger-boat`` as a process whose calls of AWS are written down: ``python recorded_cli.py FILE ARGUMENTS ...``."""

import sys
from pathlib import Path

from recorded_calls import recording_to

from bigger_boat import cli

if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    with recording_to(file):
        cli.main()
