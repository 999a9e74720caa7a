"""`riskcast keys`: who may call."""

from riskcast_server.settings import RiskcastSettings
from serving.access.commands import keys_commands

create, list_keys, revoke = keys_commands(RiskcastSettings)
