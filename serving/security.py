"""How a server is secured against those who call it, and what a client needs for servers so secured."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.tls import ClientTls, ServerTls

KEY_HEADER = "x-api-key"  # of a call: who makes it


class SecurityRefused(Exception):
    """Keys or certificates that cannot be used; the text is one line for the operator and tells no secret."""


@contextmanager
def refusing() -> Iterator[None]:
    """What reading keys and certificates raises becomes SecurityRefused."""
    try:
        yield
    except OSError as error:
        raise SecurityRefused(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise SecurityRefused(str(error)) from error


@dataclass(frozen=True, slots=True)
class Security:
    """Of a server; by default it is open, which is for one machine alone.

    `keys_file` says who may call; `health_listen` is a second, plaintext address that answers nothing but health, for
    probes that have no certificate.
    """

    keys_file: Path | None = None
    tls: ServerTls | None = None
    health_listen: str | None = None
    has_reflection: bool = True


OPEN = Security()


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """Of a client: what it sends, whom it trusts, and what it shows when it is asked for a certificate.

    Plaintext without `ca_file`.
    """

    api_key_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def maybe_tls(self) -> ClientTls | None:
        return ClientTls(self.ca_file, self.cert_file, self.key_file) if self.ca_file else None


PLAIN = ClientSecurity()
