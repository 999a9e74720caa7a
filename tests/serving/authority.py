"""An authority for tests, and keys, in a directory of their own."""

import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import serving
from contract.scopes import Scope
from serving.access.keys import new_key, sha256_of
from serving.certificates.authority import Authority, Pair, issued, keep, new_authority, pair_in, write
from serving.security import ClientSecurity, Security
from serving.tls import ServerTls
from tests.serving.probe import DOMAIN, KINDS, SERVICE, mount

LOOPBACK = ("127.0.0.1", "localhost")
SCOPES = {f"/{SERVICE.full_name}/{kind}": Scope.INGEST for kind in KINDS}


@dataclass(frozen=True)
class Trust:
    """Those whom one authority has signed."""

    directory: Path
    authority: Authority

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def issue(
        self, name: str, hosts: Iterable[str] = LOOPBACK, days: int = 1, from_time: datetime | None = None
    ) -> Pair:
        """A certificate and its key; again it replaces the one of before."""
        pair = pair_in(self.directory, name)
        write(pair, *issued(self.authority, name, hosts, days, from_time))
        return pair

    def server(self, clients: "Trust | None" = None) -> ServerTls:
        """With `clients` a client must show a certificate of theirs."""
        pair = self.issue("server")
        return ServerTls(pair.cert_file, pair.key_file, clients.ca_file if clients else None)

    def client(self, maybe_shown: Pair | None = None) -> ClientSecurity:
        """Trusts this authority, and shows a certificate when asked."""
        if maybe_shown is None:
            return ClientSecurity(ca_file=self.ca_file)
        return ClientSecurity(None, self.ca_file, maybe_shown.cert_file, maybe_shown.key_file)


def trust(directory: Path, name: str = "trusted") -> Trust:
    """A new authority in a directory of that name."""
    (directory / name).mkdir()
    made = Trust(directory / name, new_authority(name))
    keep(made.authority, made.directory)
    return made


def write_keys(path: Path, **scopes: Iterable[str]) -> dict[str, str]:
    """A file of keys with these scopes, by id, in one go as `keys create` does it; the keys as clients send them."""
    keys = {key_id: new_key(key_id) for key_id in scopes}
    entries = [{"id": key_id, "sha256": sha256_of(key), "scopes": list(scopes[key_id])} for key_id, key in keys.items()]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"keys": entries}), "utf-8")
    partial.replace(path)
    return keys


@asynccontextmanager
async def secured(probe: object, security: Security, listen: str = "127.0.0.1:0") -> AsyncIterator[serving.Running]:
    """A probe whose four methods need the scope `ingest` where there are keys."""
    async with serving.serve(listen, [mount(probe)], domain=DOMAIN, security=security, scopes=SCOPES) as running:
        yield running


def handshake(port: int, trusted: Trust, version: ssl.TLSVersion | None = None, shown: Pair | None = None) -> Any:
    """What a server on loopback shows and agrees to: (TLS version, ALPN protocol, serial number). Raises OSError."""
    context = ssl.create_default_context(cafile=trusted.ca_file)
    context.set_alpn_protocols(["h2"])
    if shown:
        context.load_cert_chain(shown.cert_file, shown.key_file)
    if version:
        context.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse the old ones by itself
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate
        return secure.version(), secure.selected_alpn_protocol(), certificate["serialNumber"]
