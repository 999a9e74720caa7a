"""How a durable record reaches RiskCast.

`follow` is the edge: it reads the ledger, holds the stream and keeps the time. What it does is decided by parts that
do none of that: `backlog` (what is sent next), `breaker` and `retry` (whether and when RiskCast is called), `pace` (how
long it takes), `newest` (what need not be read). `stream` is one call, `line` the connection under it.
"""

from omen_server.delivery.follow import Delivery

__all__ = ["Delivery"]
