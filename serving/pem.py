"""Certificates and private keys in PEM files, as gRPC serves them.

gRPC says of a pair that it cannot use that the address cannot be listened on, and of one that breaks later nothing: so
each is looked at here first, and gRPC gets what was understood here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

from serving.files import read_regular

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
