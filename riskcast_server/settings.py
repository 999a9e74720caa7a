"""What RiskCast is told by its environment: RISKCAST_<NAME> for each field; its description says what it is for."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from serving.security import ClientSecurity
from serving.settings import ServerSettings


def split(value: object) -> object:
    return tuple(part for each in value.split(",") if (part := each.strip())) if isinstance(value, str) else value


Targets = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]  # comma separated


class RiskcastSettings(ServerSettings):
    """Read by `serving.settings.load`, which refuses unknown RISKCAST_* names."""

    model_config = SettingsConfigDict(env_prefix="RISKCAST_", frozen=True, hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:50052", description="host:port the server listens on; port 0 takes a free one")
    database_url: str = Field(
        "sqlite:///riskcast.db",
        repr=False,  # it may hold a password
        description="sqlite:///relative/path, sqlite:////absolute/path or postgresql://user:password@host/database",
    )
    database_statements_cached: int = Field(
        default=100,
        ge=0,
        description="prepared statements kept by a connection to PostgreSQL; 0 behind a pooler of transactions",
    )
    omen_targets: Targets = Field((), description="host:port of each OMEN that Reconcile asks, comma separated")
    reconcile_interval: float = Field(
        default=900,
        ge=0,
        description="seconds between its own Reconciles, a tenth more or less; 0 is never",
    )
    reconcile_max_records_per_second: int = Field(
        default=10_000,
        ge=0,
        description="how fast Reconcile fetches beside live ingest; 0 sets no limit",
    )
    omen_api_key_file: Path | None = Field(default=None, description="the key that is sent to the OMENs")
    omen_tls_ca_file: Path | None = Field(
        default=None, description="PEM of those who sign the certificate of the OMENs; plaintext without it"
    )

    def omen_security(self) -> ClientSecurity:
        """The server shows its own certificate when it calls, too."""
        return ClientSecurity(self.omen_api_key_file, self.omen_tls_ca_file, self.tls_cert_file, self.tls_key_file)
