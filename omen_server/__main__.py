"""`python -m omen_server` is the `omen` command."""

from omen_server.cli import main

main()
