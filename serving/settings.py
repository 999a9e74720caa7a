"""Reading a server's settings from its environment: an unknown name is refused, and no value ever reaches a message."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings

from serving.addresses import host_and_port
from serving.security import ClientSecurity, Security
from serving.tls import ServerTls

S = TypeVar("S", bound=BaseSettings)


def a_listen(value: str) -> str:
    try:
        host_and_port(value)
    except ValueError:
        raise ValueError("expected host:port") from None
    return value


Listen = Annotated[str, AfterValidator(a_listen)]

# Who sets the first and not the second would run without what he asked for.
NEEDED = (
    ("tls_cert_file", "tls_key_file"),
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
    ("client_tls_cert_file", "client_tls_key_file"),
    ("client_tls_key_file", "client_tls_cert_file"),
    ("client_tls_cert_file", "client_tls_ca_file"),
)


class ServerSettings(BaseSettings):
    """What both servers are told in the same words, each under its own prefix; and their commands, as clients.

    Whether a file is there shows when it is read: a command that makes it is told its name too.
    """

    health_listen: Listen | None = Field(
        default=None, description="host:port that answers health alone, in plaintext, for probes"
    )
    metrics_listen: Listen | None = Field(default=None, description="host:port of the Prometheus metrics, over HTTP")
    api_keys_file: Path | None = Field(default=None, description="who may call; anybody without it")
    tls_cert_file: Path | None = Field(
        default=None, description="PEM chain that the server shows; plaintext without it"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of tls_cert_file")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM of those whose clients are let in; any without it"
    )
    reflection: bool = Field(default=True, description="whether the server tells its services to whoever may call")
    traces_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="OTLP collector over HTTP; needs the extra 'traces'",
    )
    client_api_key_file: Path | None = Field(default=None, description="the key that commands send")
    client_tls_ca_file: Path | None = Field(
        default=None, description="PEM of those who sign the server that commands call"
    )
    client_tls_cert_file: Path | None = Field(default=None, description="PEM chain that commands show when asked")
    client_tls_key_file: Path | None = Field(default=None, description="PEM private key of client_tls_cert_file")

    @model_validator(mode="after")
    def _nothing_is_half_said(self) -> Self:
        prefix = self.model_config["env_prefix"]
        flaws = [
            f"{prefix}{name.upper()}: needs {prefix}{needed.upper()}"
            for name, needed in NEEDED
            if getattr(self, name) and not getattr(self, needed)
        ]
        if flaws:
            raise ValueError("\n".join(flaws))
        return self

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
        raise SettingsRefused("\n".join(_told(prefix, flaw["loc"], flaw["msg"]) for flaw in flaws)) from None


def _told(prefix: str, path: tuple[int | str, ...], message: str) -> str:
    """What is wrong with several settings at once has no place and names them itself."""
    said = message.removeprefix("Value error, ")
    return f"{prefix}{'.'.join(map(str, path)).upper()}: {said}" if path else said


def _unknown(name: str, prefix: str, kind: type[BaseSettings]) -> str:
    """Compared without the prefix: with it every name resembles every other."""
    known = [field.upper() for field in kind.model_fields]
    close = difflib.get_close_matches(name.upper().removeprefix(prefix), known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {prefix}{close[0]}?" if close else "")
