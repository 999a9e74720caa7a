"""Reading a server's settings from its environment: an unknown name is refused, and no value ever reaches a message."""

import difflib
import os
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from serving.security import ClientSecurity, Security
from serving.tls import ServerTls

S = TypeVar("S", bound=BaseSettings)


class ServerSettings(BaseSettings):
    """What both servers are told in the same words, each under its own prefix; and their commands, as clients."""

    health_listen: str | None = Field(
        default=None, description="host:port that answers health alone, in plaintext, for probes"
    )
    metrics_listen: str | None = Field(default=None, description="host:port of the Prometheus metrics, over HTTP")
    api_keys_file: Path | None = Field(default=None, description="who may call; anybody without it")
    tls_cert_file: Path | None = Field(
        default=None, description="PEM chain that the server shows; plaintext without it"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of tls_cert_file")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM of those whose clients are let in; any without it"
    )
    reflection: bool = Field(default=True, description="whether the server tells its services to whoever may call")
    traces_endpoint: str | None = Field(default=None, description="OTLP collector over HTTP; needs the extra 'traces'")
    client_api_key_file: Path | None = Field(default=None, description="the key that commands send")
    client_tls_ca_file: Path | None = Field(
        default=None, description="PEM of those who sign the server that commands call"
    )
    client_tls_cert_file: Path | None = Field(default=None, description="PEM chain that commands show when asked")
    client_tls_key_file: Path | None = Field(default=None, description="PEM private key of client_tls_cert_file")

    def security(self) -> Security:
        tls = None
        if self.tls_cert_file and self.tls_key_file:
            tls = ServerTls(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        return Security(self.api_keys_file, tls, self.health_listen, self.reflection)

    def client_security(self) -> ClientSecurity:
        return ClientSecurity(
            self.client_api_key_file, self.client_tls_ca_file, self.client_tls_cert_file, self.client_tls_key_file
        )


class SettingsRefused(Exception):
    """One line per setting that is unknown or wrong, by its name, without its value."""


def load(kind: type[S]) -> S:
    """The settings of one server. Raises SettingsRefused."""
    prefix = kind.model_config["env_prefix"]
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(prefix) and name.upper() not in known)
    if unknown:
        raise SettingsRefused("\n".join(_unknown(name, prefix, kind) for name in unknown))
    try:
        return kind()
    except ValidationError as error:
        flaws = error.errors(include_input=False, include_context=False, include_url=False)
        raise SettingsRefused("\n".join(f"{prefix}{_name(flaw['loc'])}: {flaw['msg']}" for flaw in flaws)) from None


def _name(path: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in path).upper()


def _unknown(name: str, prefix: str, kind: type[BaseSettings]) -> str:
    """Compared without the prefix: with it every name resembles every other."""
    known = [field.upper() for field in kind.model_fields]
    close = difflib.get_close_matches(name.upper().removeprefix(prefix), known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {prefix}{close[0]}?" if close else "")
