"""TLS of servers and clients, whose certificates are read again when they are replaced.

gRPC talks TLS 1.2 and 1.3 and nothing older. `pem` reads the files; it is imported with the first of them, because
cryptography takes a tenth of a start, and most commands and every server in plaintext do without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc

from serving.files import Reloaded

if TYPE_CHECKING:
    from serving.pem import PemPair

ServerPems: TypeAlias = "tuple[PemPair, bytes | None]"  # its own, and those who sign its clients


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server. With `client_ca_file` a client must show a certificate that it signed."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        return [self.cert_file, self.key_file, *([self.client_ca_file] if self.client_ca_file else [])]

    def credentials(self) -> grpc.ServerCredentials:
        """Asks at each handshake whether the files have changed. Raises OSError, ValueError."""
        files = Reloaded(self.paths, self._read)
        first = files.current()
        return grpc.dynamic_ssl_server_credentials(
            configuration(*first),
            changes(files, first),  # type: ignore[arg-type]  # None is taken too
            require_client_authentication=self.client_ca_file is not None,
        )

    def _read(self) -> ServerPems:
        from serving.pem import read_ca, read_pair

        pair = read_pair(self.cert_file, self.key_file)
        return pair, read_ca(self.client_ca_file) if self.client_ca_file else None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files of a client: whom it trusts, and what it shows to a server that asks."""

    ca_file: Path
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> Reloaded[grpc.ChannelCredentials]:
        """New ones whenever the files have changed. Raises OSError, ValueError."""
        return Reloaded([path for path in (self.ca_file, self.cert_file, self.key_file) if path], self._read)

    def _read(self) -> grpc.ChannelCredentials:
        from serving.pem import read_ca, read_pair

        ca = read_ca(self.ca_file)
        if self.cert_file is None or self.key_file is None:
            return grpc.ssl_channel_credentials(ca)
        pair = read_pair(self.cert_file, self.key_file)
        return grpc.ssl_channel_credentials(ca, pair.key, pair.chain)


def changes(files: Reloaded[ServerPems], given: ServerPems) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """What gRPC calls at each handshake, on threads of its own: a new configuration, or None while it is as `given`.

    It takes away what is in a configuration, so none may be given to it twice.
    """

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        current = files.current()
        if current is given:
            return None
        given = current
        return configuration(*current)

    return changed


def configuration(pair: "PemPair", client_ca: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], client_ca)
