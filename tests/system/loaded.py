"""All that the commands of both programs load, for processes that are forked from one that has it."""

from importlib import import_module

import omen_server.cli
import riskcast_server.cli
from serving.commands import Group, Table


def modules(table: Table) -> set[str]:
    places = (
        place
        for entry in table.values()
        for place in (entry.commands.values() if isinstance(entry, Group) else (entry,))
    )
    return {place.partition(":")[0] for place in places}


for name in sorted(modules(omen_server.cli.COMMANDS) | modules(riskcast_server.cli.COMMANDS)):
    import_module(name)
import_module("serving.channels")  # what `serving` offers to them
import_module("serving.server")
