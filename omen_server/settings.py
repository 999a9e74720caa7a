"""What OMEN is told by its environment: OMEN_<NAME> for each field, a field's comment says what it is for."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from serving.security import ClientSecurity
from serving.settings import ServerSettings


class OmenSettings(ServerSettings):
    """Read by `serving.settings.load`, which refuses unknown OMEN_* names."""

    model_config = SettingsConfigDict(env_prefix="OMEN_", frozen=True, hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:50051", description="host:port the server listens on; port 0 takes a free one")
    ledger_dir: Path = Field(Path("omen-ledger"), description="directory of the ledger; made when missing")
    riskcast_target: str = Field("127.0.0.1:50052", description="host:port of RiskCast's IngestService")
    riskcast_api_key_file: Path | None = Field(default=None, description="the key that is sent to RiskCast")
    riskcast_tls_ca_file: Path | None = Field(
        default=None, description="PEM of those who sign the certificate of RiskCast; plaintext without it"
    )
    breaker_open_s: float = Field(
        default=30.0, gt=0, le=3600, description="how long RiskCast is left alone after too many failures, seconds"
    )

    def riskcast_security(self) -> ClientSecurity:
        """The server shows its own certificate when it calls, too."""
        return ClientSecurity(
            self.riskcast_api_key_file, self.riskcast_tls_ca_file, self.tls_cert_file, self.tls_key_file
        )
