"""``python -m bigger_boat.cli``."""

from bigger_boat.cli import main

main()
