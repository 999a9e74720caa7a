"""Makes keys and certificates, as PEM files.

Keys are of P-256: TLS is quick with them, and every client knows them.
"""

import ipaddress
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from serving.pem import read_pair

CA_DAYS = 3650  # it is given to every client, and hard to replace
LEEWAY = timedelta(minutes=5)  # for a client whose clock is behind


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a certificate and its private key are."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs. The key is kept out of `repr`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()})"


def new_authority(name: str, days: int = CA_DAYS) -> Authority:
    """One that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        unsigned(name, name, key.public_key(), datetime.now(UTC), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issued(
    authority: Authority, name: str, hosts: Iterable[str], days: int, from_time: datetime | None = None
) -> tuple[bytes, bytes]:
    """PEM of a certificate, for servers and clients alike, and of its key. `hosts`: what clients dial it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    certificate = (
        unsigned(name, str(issuer), key.public_key(), from_time or datetime.now(UTC), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem_of(key)


def unsigned(
    name: str, issuer: str, public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, from_time: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(from_time - LEEWAY)
        .not_valid_after(from_time + timedelta(days=days))
    )


def general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(pair: Pair, certificate: bytes, key: bytes) -> None:
    """Each file is there whole or not at all, readable by its owner alone; what was there before is replaced."""
    for path, data in ((pair.key_file, key), (pair.cert_file, certificate)):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)


def pair_in(directory: Path, name: str) -> Pair:
    return Pair(directory / f"{name}.pem", directory / f"{name}.key")


def keep(authority: Authority, directory: Path) -> None:
    """As ca.pem and ca.key."""
    write(
        pair_in(directory, "ca"), authority.certificate.public_bytes(serialization.Encoding.PEM), pem_of(authority.key)
    )


def kept(directory: Path) -> Authority:
    """What keep() has written. Raises OSError, and ValueError without a word of what the files hold."""
    pair = pair_in(directory, "ca")
    pems = read_pair(pair.cert_file, pair.key_file)
    key = serialization.load_pem_private_key(pems.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{pair.key_file} is of another kind")
    return Authority(x509.load_pem_x509_certificate(pems.chain), key)
