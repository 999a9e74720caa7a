"""What makes a signal credible: pure functions of an observation and a ruleset."""

from omen_server.domain.explanation import explain_verdicts
from omen_server.domain.pipeline import process
from omen_server.domain.ruleset import RULESET, RULESET_VERSION, RuleFailed, Ruleset

__all__ = ["RULESET", "RULESET_VERSION", "RuleFailed", "Ruleset", "explain_verdicts", "process"]
