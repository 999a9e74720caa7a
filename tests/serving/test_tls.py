"""TLS of a server: who gets in, who does not, and certificates that are replaced while it runs."""

import asyncio
import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

import serving
from serving.certificates.authority import Pair, general_name, unsigned, write
from serving.security import PLAIN, ClientSecurity, Security, SecurityRefused
from serving.tls import ServerTls
from tests.omen_server.running import closed_port
from tests.serving.authority import Trust, handshake, secured, trust
from tests.serving.probe import KINDS, Probe, answers, failure, open_call

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


def serial(pair: Pair) -> str:
    number = x509.load_pem_x509_certificate(pair.cert_file.read_bytes()).serial_number
    return f"{number:0{40}X}"


async def shown_serial(port: int, trusted: Trust) -> str:
    """Of a new handshake."""
    _, _, number = await asyncio.to_thread(handshake, port, trusted)
    return str(number).zfill(40)


@pytest.mark.parametrize("is_mutual", [False, True], ids=["TLS", "mTLS"])
async def test_every_kind_of_call_goes_through(tmp_path: Path, is_mutual: bool) -> None:
    ours = trust(tmp_path)
    client = ours.client(ours.issue("client") if is_mutual else None)
    security = Security(tls=ours.server(ours if is_mutual else None))
    async with secured(Probe(), security) as running, serving.channel(running.target, client) as channel:
        for kind in KINDS:
            assert await answers(open_call(channel, kind)) == ["hello"]


def plaintext(_ours: Trust, _others: Trust) -> ClientSecurity:
    return PLAIN


def another_authority(_ours: Trust, others: Trust) -> ClientSecurity:
    return others.client(others.issue("client"))


def no_certificate(ours: Trust, _others: Trust) -> ClientSecurity:
    return ours.client()


def a_certificate_of_others(ours: Trust, others: Trust) -> ClientSecurity:
    return ours.client(others.issue("client"))


def an_expired_certificate(ours: Trust, _others: Trust) -> ClientSecurity:
    return ours.client(ours.issue("client", from_time=LONG_AGO))


@pytest.mark.parametrize(
    "client", [plaintext, another_authority, no_certificate, a_certificate_of_others, an_expired_certificate]
)
async def test_a_client_that_is_not_what_was_asked_for_is_refused_and_others_get_in(
    tmp_path: Path, client: Callable[[Trust, Trust], ClientSecurity]
) -> None:
    ours, others = trust(tmp_path), trust(tmp_path, "others")
    probe = Probe()
    async with secured(probe, Security(tls=ours.server(ours))) as running:
        async with serving.channel(running.target, client(ours, others)) as channel:
            assert (await failure(open_call(channel, "UnaryUnary"))).code is grpc.StatusCode.UNAVAILABLE
        assert probe.entered == 0
        async with serving.channel(running.target, ours.client(ours.issue("client"))) as channel:
            assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"hosts": ["omen.example", "127.0.0.2"]}, "Hostname Verification Check failed"),
        ({"hosts": []}, "Hostname Verification Check failed"),
        ({"from_time": LONG_AGO}, "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["of another host", "of no host", "expired"],
)
async def test_a_client_refuses_a_server_whose_certificate_is(
    tmp_path: Path, server: dict[str, Any], said: str
) -> None:
    ours, probe = trust(tmp_path), Probe()
    pair = ours.issue("server", **server)
    async with (
        secured(probe, Security(tls=ServerTls(pair.cert_file, pair.key_file))) as running,
        serving.channel(running.target, ours.client()) as channel,
    ):
        refused = await failure(open_call(channel, "UnaryUnary"))
        assert (refused.code, said in refused.text) == (grpc.StatusCode.UNAVAILABLE, True)
        assert probe.entered == 0


async def test_a_client_that_wants_tls_refuses_a_server_in_plaintext(tmp_path: Path) -> None:
    ours, probe = trust(tmp_path), Probe()
    async with secured(probe, Security()) as running, serving.channel(running.target, ours.client()) as channel:
        refused = await failure(open_call(channel, "UnaryUnary"))
        assert (refused.code, "WRONG_VERSION_NUMBER" in refused.text) == (grpc.StatusCode.UNAVAILABLE, True)
        assert probe.entered == 0


def on(ours: Trust, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: str = "other") -> Pair:
    """A pair with that key."""
    certificate = (
        unsigned(name, "trusted", key.public_key(), datetime.now(UTC), 1)
        .add_extension(x509.SubjectAlternativeName([general_name("127.0.0.1")]), critical=False)
        .sign(ours.authority.key, SHA256())
    )
    pair = Pair(ours.directory / f"{name}.pem", ours.directory / f"{name}.key")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    write(pair, certificate.public_bytes(Encoding.PEM), pem)
    return pair


@pytest.mark.parametrize(
    "make", [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())]
)
async def test_other_keys_than_our_own_will_do_too(
    tmp_path: Path, make: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]
) -> None:
    ours = trust(tmp_path)
    pair = on(ours, make())
    async with (
        secured(Probe(), Security(tls=ServerTls(pair.cert_file, pair.key_file, ours.ca_file))) as running,
        serving.channel(running.target, ours.client(pair)) as channel,
    ):
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


async def test_a_new_handshake_gets_the_new_certificate_and_who_is_connected_goes_on(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    async with (
        secured(Probe(), Security(tls=ours.server())) as running,
        serving.channel(running.target, ours.client()) as channel,
    ):
        first = serial(Pair(ours.directory / "server.pem", ours.directory / "server.key"))
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]
        assert [await shown_serial(running.port, ours) for _ in range(3)] == [first] * 3
        for _ in range(2):
            second = serial(ours.issue("server"))
            assert [await shown_serial(running.port, ours) for _ in range(3)] == [second] * 3
        assert await answers(open_call(channel, "UnaryUnary")) == ["hello"]


def cut(pair: Pair) -> None:
    pair.key_file.write_bytes(pair.key_file.read_bytes()[:100])


def gone(pair: Pair) -> None:
    pair.key_file.unlink()


def mixed_up(pair: Pair) -> None:
    other = trust(pair.key_file.parent, "other").issue("server")
    pair.key_file.write_bytes(other.key_file.read_bytes())


@pytest.mark.parametrize("broken", [cut, gone, mixed_up])
async def test_what_cannot_be_used_leaves_the_certificate_of_before_and_is_told_once_without_a_word_of_the_key(
    tmp_path: Path, broken: Callable[[Pair], None]
) -> None:
    ours = trust(tmp_path)
    pair = ours.issue("server")
    before, key = serial(pair), pair.key_file.read_text("utf-8")
    async with secured(Probe(), Security(tls=ServerTls(pair.cert_file, pair.key_file))) as running:
        with capture_logs() as lines:
            broken(pair)
            assert [await shown_serial(running.port, ours) for _ in range(3)] == [before] * 3
        [told] = [line for line in lines if line["event"] == "file_not_reloaded"]
        assert str(pair.key_file) in told["error"]
        assert not any(line and line in str(told) for line in key.splitlines())
        after = serial(ours.issue("server"))
        assert await shown_serial(running.port, ours) == after


async def test_other_clients_are_let_in_once_others_sign_them(tmp_path: Path) -> None:
    ours, before, after = (trust(tmp_path, name) for name in ("ours", "before", "after"))
    accepted = tmp_path / "clients.pem"
    accepted.write_bytes(before.ca_file.read_bytes())
    pair = ours.issue("server")
    async with secured(Probe(), Security(tls=ServerTls(pair.cert_file, pair.key_file, accepted))) as running:

        async def is_let_in(signed_by: Trust) -> bool:
            async with serving.channel(running.target, ours.client(signed_by.issue("client"))) as channel:
                call = open_call(channel, "UnaryUnary")
                return await call.code() is grpc.StatusCode.OK

        assert [await is_let_in(before), await is_let_in(after)] == [True, False]
        accepted.write_bytes(before.ca_file.read_bytes() + after.ca_file.read_bytes())
        assert [await is_let_in(before), await is_let_in(after)] == [True, True]
        accepted.write_bytes(after.ca_file.read_bytes())
        assert [await is_let_in(before), await is_let_in(after)] == [False, True]


async def test_whoever_connects_while_certificates_are_replaced_again_and_again_gets_one_of_them(
    tmp_path: Path,
) -> None:
    ours = trust(tmp_path)
    async with secured(Probe(), Security(tls=ours.server())) as running:
        serials = {serial(Pair(ours.directory / "server.pem", ours.directory / "server.key"))}
        for _ in range(5):
            meanwhile = asyncio.gather(*(shown_serial(running.port, ours) for _ in range(8)))
            serials.add(serial(await asyncio.to_thread(ours.issue, "server")))
            assert set(await meanwhile) <= serials
        last = serial(ours.issue("server"))
        assert await shown_serial(running.port, ours) == last


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def with_a_password(ours: Trust, pair: Pair) -> ServerTls:
    key = load_pem_private_key(pair.key_file.read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    return ServerTls(pair.cert_file, written(ours.directory / "locked.key", pem))


def of_a_kind_that_grpc_does_not_speak(ours: Trust, pair: Pair) -> ServerTls:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(ours.authority.key, SHA256()).public_bytes(Encoding.PEM)
    return ServerTls(written(ours.directory / "ed25519.pem", certificate), written(ours.directory / "x.key", pem))


UNUSABLE: dict[str, Callable[[Trust, Pair], ServerTls]] = {
    "no certificate file": lambda ours, pair: ServerTls(ours.directory / "nothing.pem", pair.key_file),
    "no key file": lambda ours, pair: ServerTls(pair.cert_file, ours.directory / "nothing.key"),
    "a key of another": lambda ours, pair: ServerTls(pair.cert_file, ours.issue("other").key_file),
    "a key for a certificate": lambda ours, pair: ServerTls(pair.key_file, pair.key_file),
    "a certificate for a key": lambda ours, pair: ServerTls(pair.cert_file, pair.cert_file),
    "garbage for a key": lambda ours, pair: ServerTls(
        pair.cert_file, written(ours.directory / "x.key", pair.key_file.read_bytes().replace(b"M", b"N"))
    ),
    "an empty file for clients": lambda ours, pair: ServerTls(
        pair.cert_file, pair.key_file, written(ours.directory / "empty.pem", b"")
    ),
    "a directory": lambda ours, pair: ServerTls(ours.directory, pair.key_file),
    "a key with a password": with_a_password,
    "an Ed25519 key": of_a_kind_that_grpc_does_not_speak,
}


@pytest.mark.parametrize("how", UNUSABLE)
async def test_what_cannot_be_used_is_refused_in_a_line_before_anything_listens(tmp_path: Path, how: str) -> None:
    ours = trust(tmp_path)
    pair, listen = ours.issue("server"), f"127.0.0.1:{closed_port()}"
    tls = UNUSABLE[how](ours, pair)
    with pytest.raises(SecurityRefused) as refused:
        async with secured(Probe(), Security(tls=tls), listen):
            pass
    said = str(refused.value)
    assert str(ours.directory) in said
    assert len(said.splitlines()) == 1
    assert not any(line in said for line in pair.key_file.read_text("utf-8").splitlines())
    async with secured(Probe(), Security(), listen):  # nobody is in the way
        pass


async def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of naming an old version at all
        old = ssl.TLSVersion.TLSv1_1
        async with secured(Probe(), Security(tls=ours.server())) as running:
            agreed = await asyncio.to_thread(handshake, running.port, ours)
            assert agreed[:2] == ("TLSv1.3", "h2")
            agreed = await asyncio.to_thread(handshake, running.port, ours, ssl.TLSVersion.TLSv1_2)
            assert agreed[:2] == ("TLSv1.2", "h2")
            with pytest.raises(ssl.SSLError, match=r"EOF|VERSION|HANDSHAKE"):
                await asyncio.to_thread(handshake, running.port, ours, old)


def test_what_is_secret_is_in_no_repr(tmp_path: Path) -> None:
    ours = trust(tmp_path)
    tls = ours.server()
    secret = tls.key_file.read_text("utf-8").splitlines()[1]
    assert secret not in f"{tls!r} {tls._read()!r} {ours!r} {Security(tls=tls)!r}"
