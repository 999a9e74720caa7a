"""What other libraries must not tell."""

import logging

DECODER = "grpc._cython.cygrpc"
SAID_OF_A_HEADER = "Invalid encoding on"


def withhold_headers() -> None:
    """gRPC logs the value of each header that is no UTF-8, with a traceback: it may be a key, and anybody may send it.

    The call has its own line.
    """
    logging.getLogger(DECODER).addFilter(tells_no_header)


def tells_no_header(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(SAID_OF_A_HEADER)
