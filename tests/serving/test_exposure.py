"""Without keys a server is for this machine alone."""

import pytest

from serving.addresses import ListenError
from serving.exposure import refuse_exposure


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
