"""Without keys a server is for this machine alone."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from serving.addresses import ListenError
from serving.exposure import refuse_exposure, warn_of_exposure
from serving.security import OPEN, Security
from serving.tls import ServerTls

KEYS, TLS = Path("keys.json"), ServerTls(Path("cert.pem"), Path("cert.key"))


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:50051", "127.8.9.10:1", "localhost:0", "[::1]:50051", "unix:/run/omen.sock", "unix:omen.sock"],
)
def test_what_only_this_machine_reaches_is_taken(listen: str) -> None:
    refuse_exposure(listen)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:50051", "omen.example:50051", "[2001:db8::1]:1", "127.1:5"]
)
def test_what_others_could_reach_is_refused_with_the_way_to_allow_it(listen: str) -> None:
    with pytest.raises(ListenError, match="--insecure") as caught:
        refuse_exposure(listen)
    assert listen in str(caught.value)


@pytest.mark.parametrize("listen", ["", "50051", ":50051", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "localhost:70000"])
def test_what_is_no_address_is_refused_as_such(listen: str) -> None:
    with pytest.raises(ListenError, match="expected host:port"):
        refuse_exposure(listen)


@pytest.mark.parametrize("security", [OPEN, Security(KEYS)], ids=["nothing", "keys alone"])
def test_what_others_reach_without_tls_is_warned_of_in_one_line(security: Security) -> None:
    with capture_logs() as lines:
        warn_of_exposure("0.0.0.0:50051", security)
    [line] = lines
    assert (line["event"], line["log_level"]) == ("exposed_without_tls", "warning")
    assert line["has_keys"] is (security is not OPEN)


@pytest.mark.parametrize(
    ("listen", "security"), [("0.0.0.0:50051", Security(KEYS, TLS)), ("127.0.0.1:50051", OPEN), ("unix:s", OPEN)]
)
def test_what_is_encrypted_or_stays_on_this_machine_is_not(listen: str, security: Security) -> None:
    with capture_logs() as lines:
        warn_of_exposure(listen, security)
    assert lines == []
