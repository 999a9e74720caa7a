"""PEM files as people write them: what gRPC would misread in silence is understood, or refused in a line."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

import serving
from serving.certificates.authority import write
from serving.checking.checks import Outcome, check_tls
from serving.pem import read_pair
from serving.security import Security, SecurityRefused
from serving.tls import ClientTls, ServerTls
from tests.serving.authority import secured, trust
from tests.serving.probe import Probe, answers, open_call
from tests.serving.test_tls import on, serial, shown_serial, written

BOM = b"\xef\xbb\xbf"


async def test_an_authority_that_is_withdrawn_lets_nobody_in_though_a_byte_order_mark_comes_before_the_new_one(
    tmp_path: Path,
) -> None:
    ours, before, after = (trust(tmp_path, name) for name in ("ours", "before", "after"))
    accepted = written(tmp_path / "clients.pem", before.ca_file.read_bytes())
    pair = ours.issue("server")
    async with secured(Probe(), Security(tls=ServerTls(pair.cert_file, pair.key_file, accepted))) as running:
        accepted.write_bytes(BOM + after.ca_file.read_bytes())
        codes = []
        for signed_by in (before, after):
            async with serving.channel(running.target, ours.client(signed_by.issue("client"))) as channel:
                codes.append(await open_call(channel, "UnaryUnary").code())
    assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK]


async def test_what_stands_around_certificates_and_keys_does_not_matter_on_either_side(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    shown = ours.issue("client")
    security = Security(tls=ours.server(ours))
    for path in ours.directory.iterdir():
        path.write_bytes(BOM + b"# of us\r\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"# its end")
    async with (
        secured(Probe(), security) as running,
        serving.channel(running.target, ours.client(shown)) as channel,
    ):
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


@pytest.mark.parametrize("curve", [ec.SECP224R1, ec.SECP521R1, ec.SECP256K1, ec.BrainpoolP256R1])
async def test_a_curve_that_grpc_does_not_serve_is_refused_by_name_on_either_side_and_on_a_reload(
    tmp_path: Path, curve: type[ec.EllipticCurve]
) -> None:
    ours = trust(tmp_path)
    pair, usual = on(ours, ec.generate_private_key(curve())), ours.issue("server")
    before, tls = serial(usual), ServerTls(usual.cert_file, usual.key_file)
    said = rf"^{pair.key_file} is a key on the curve {curve.name}: gRPC serves P-256 and P-384 alone$"
    with pytest.raises(SecurityRefused, match=said):
        async with secured(Probe(), Security(tls=ServerTls(pair.cert_file, pair.key_file))):
            pass
    checked = check_tls(ServerTls(pair.cert_file, pair.key_file), datetime.now(UTC))
    assert (checked.outcome, re.fullmatch(said, checked.seen) is not None) == (Outcome.FAILED, True)
    async with secured(Probe(), Security(tls=tls)) as running:
        with pytest.raises(SecurityRefused, match=said):
            serving.channel(running.target, ours.client(pair))
        with capture_logs() as lines:
            write(usual, pair.cert_file.read_bytes(), pair.key_file.read_bytes())
            assert await shown_serial(running.port, ours) == before
        assert [line["event"] for line in lines if line["event"].startswith("file_")] == ["file_not_reloaded"]


RSA, RSA_PSS = bytes.fromhex("2a864886f70d0101010500"), bytes.fromhex("2a864886f70d01010a3000")  # with their parameters


def test_a_key_that_is_bound_to_rsa_pss_is_refused(tmp_path: Path) -> None:
    pair = on(trust(tmp_path), rsa.generate_private_key(65537, 2048))
    usual = x509.load_pem_x509_certificate(pair.cert_file.read_bytes()).public_bytes(Encoding.DER)
    bound = x509.load_der_x509_certificate(usual.replace(RSA, RSA_PSS))
    pair.cert_file.write_bytes(bound.public_bytes(Encoding.PEM))
    with pytest.raises(ValueError, match=rf"^{pair.cert_file} has an RSA-PSS key"):
        read_pair(pair.cert_file, pair.key_file)


def with_a_name_that_is_no_text(pem: bytes) -> bytes:
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return x509.load_der_x509_certificate(der.replace(b"others", b"\xff" * 6)).public_bytes(Encoding.PEM)


HALF_WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "without an end": lambda pem: pem[: len(pem) // 2],
    "of a few bytes": lambda pem: pem[:15],
    "no base64": lambda pem: pem.replace(b"M", b"!"),
    "no certificate": lambda pem: pem[:40] + pem[60:],
    "with a name that is no text": with_a_name_that_is_no_text,
    "of OpenSSL's own kind": lambda pem: pem.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE"),
}


@pytest.mark.parametrize("how", HALF_WRITTEN)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_bundle_is_taken_whole_or_not_at_all(tmp_path: Path, how: str, is_last: bool) -> None:
    ours, others = trust(tmp_path), trust(tmp_path, "others")
    pair, good = ours.issue("server"), ours.issue("good")
    half = HALF_WRITTEN[how](others.ca_file.read_bytes()) + b"\n"
    chain, authorities = pair.cert_file.read_bytes(), ours.ca_file.read_bytes()
    pair.cert_file.write_bytes(chain + half if is_last else half + chain)
    bundle = written(tmp_path / "bundle.pem", authorities + half if is_last else half + authorities)
    for path, read in (
        (bundle, ServerTls(good.cert_file, good.key_file, bundle).credentials),
        (bundle, ClientTls(bundle).credentials),
        (pair.cert_file, ServerTls(pair.cert_file, pair.key_file).credentials),
        (pair.cert_file, ClientTls(ours.ca_file, pair.cert_file, pair.key_file).credentials),
    ):
        with pytest.raises(ValueError, match=rf"^{path} holds a certificate that is damaged or half written$"):
            read()
