"""Property tests draw the same examples on every run, and have no deadline: a busy machine is not a failure."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
