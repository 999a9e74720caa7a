"""TLS of servers and clients, whose certificates are read again when they are replaced.

gRPC talks TLS 1.2 and 1.3 and nothing older. It says of a pair that it cannot use that the address cannot be listened
on, and of one that breaks later nothing: so each is looked at here first, and gRPC gets what was understood here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

from serving.files import Reloaded, read_regular

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# It reads P-521 too, but offers no signature with it: such a server starts, and nobody can connect.
CURVES = (ec.SECP256R1, ec.SECP384R1)
# With its label, which is empty where the line is cut short.
BEGUN = re.compile(rb"-----BEGIN(?: ([A-Z0-9 ]+)-----)?")


@dataclass(frozen=True, slots=True)
class PemPair:
    """A certificate chain and its private key."""

    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        return "PemPair()"


ServerPems: TypeAlias = tuple[PemPair, bytes | None]  # its own, and those who sign its clients


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


def configuration(pair: PemPair, client_ca: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], client_ca)


def read_pair(cert_file: Path, key_file: Path) -> PemPair:
    """Raises OSError, and ValueError, without a word of what the files hold, unless they belong together."""
    chain, key = certificates(cert_file, read_regular(cert_file)), private_key(key_file, read_regular(key_file))
    if not is_of(chain[0], key):
        raise ValueError(f"{key_file} is not the key of {cert_file}")
    if chain[0].public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise ValueError(f"{cert_file} has an RSA-PSS key: gRPC serves plain RSA keys alone")
    return PemPair(encoded(chain), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_ca(ca_file: Path) -> bytes:
    """One certificate or several. Raises OSError, ValueError."""
    return encoded(certificates(ca_file, read_regular(ca_file)))


def encoded(chain: Sequence[x509.Certificate]) -> bytes:
    """What was understood here, and nothing else of the file: gRPC drops a file that begins with a BOM in silence."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    """At least one, and all that are begun in it. Raises ValueError."""
    begun = sum(label == b"" or label.endswith(b"CERTIFICATE") for label in BEGUN.findall(pem))
    if not begun:
        raise ValueError(f"{path} holds no PEM certificate")
    try:
        found = x509.load_pem_x509_certificates(pem)
        names = {each.subject for each in found} | {each.issuer for each in found}  # decoded when they are asked for
    except (ValueError, x509.InvalidVersion):
        found, names = [], set()
    if len(found) != begun or not names:  # the library steps over one that has no end
        raise ValueError(f"{path} holds a certificate that is damaged or half written")
    return found


def is_of(certificate: x509.Certificate, key: PrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # a key of a kind that is not known here is not this one
        return False


def private_key(path: Path, pem: bytes) -> PrivateKey:
    """One that gRPC serves. Raises ValueError."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no PEM private key without a password") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is neither an RSA nor an EC key")  # gRPC offers no others to its clients
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, CURVES):
        raise ValueError(f"{path} is a key on the curve {key.curve.name}: gRPC serves P-256 and P-384 alone")
    return key
