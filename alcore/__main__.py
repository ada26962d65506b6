"""``python -m alcore`` is the command ``alcore``."""

from alcore.cli.main import main

main()
