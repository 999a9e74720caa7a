"""`python -m riskcast_server` is the command `riskcast`."""

from riskcast_server.cli import main

main()
