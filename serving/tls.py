"""TLS of servers and clients, whose certificates are read again when they are replaced."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from serving.files import Reloaded


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
        configuration = Reloaded(self.paths, self._read)
        return grpc.dynamic_ssl_server_credentials(
            configuration.current(),
            configuration.current,
            require_client_authentication=self.client_ca_file is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.key_file.read_bytes(), self.cert_file.read_bytes())
        client_ca = self.client_ca_file.read_bytes() if self.client_ca_file else None
        return grpc.ssl_server_certificate_configuration([pair], client_ca)
