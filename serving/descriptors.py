"""How many connections a server takes: never the files that the ledger and the store need, whatever clients do.

Anybody may connect, with or without a key. A ledger that cannot open its next segment has to stop.
"""

import sys

# Idle, each takes some 10 KiB: 80 MiB together.
CONNECTIONS_MAX = 8192
# Of the address for probes: a few kubelets and balancers, and room beside those who connect and say nothing.
PROBES_MAX = 256
# What else is open: probes, and some 30 files from the start, 16 live segments, a reader on each of 32 threads, and the
# connections to the other server, a database and whoever reads metrics. Of the latter rather half as much again.
OWN_FILES_MAX = PROBES_MAX + 192


def connections_max() -> int:
    """At least one. Raises the process's own limit of open files as far as it may: most systems begin with 1,024."""
    if sys.platform == "win32":
        return CONNECTIONS_MAX
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + OWN_FILES_MAX
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS_MAX, soft - OWN_FILES_MAX))
