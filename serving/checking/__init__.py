"""What `omen check` and `riskcast check` find out before a server is started."""
