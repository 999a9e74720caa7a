"""`omen keys`: who may call."""

from omen_server.settings import OmenSettings
from serving.access.commands import keys_commands

create, list_keys, revoke = keys_commands(OmenSettings)
