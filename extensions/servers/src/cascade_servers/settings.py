"""The settings of the servers: `nessie` and `trino`. Imported when settings are read: nothing but pydantic."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

__all__ = ["NessieSettings", "TrinoSettings"]

_CONFIG = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _http(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("it must begin with http:// or https://")
    return value.rstrip("/")


_Url = Annotated[str, AfterValidator(_http)]


class NessieSettings(BaseModel):
    """Where Nessie is, and how to log in: a token, or a client that gets one."""

    model_config = _CONFIG

    url: _Url = Field(default="http://127.0.0.1:19120/api/v2", description="Nessie's REST API, version 2.")
    token: SecretStr | None = Field(default=None, description="Bearer token for Nessie.")
    token_url: _Url = Field(
        default="",
        description="Where OAuth2 client credentials become a token for Nessie; needs client_id and client_secret.",
    )
    client_id: str = Field(default="", description="OAuth2 client of Nessie.")
    client_secret: SecretStr | None = Field(default=None, description="Secret of client_id.")

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        oauth = (self.token_url, self.client_id, self.client_secret)
        if any(oauth) and not all(oauth):
            raise ValueError("`nessie.token_url`, `nessie.client_id` and `nessie.client_secret` belong together")
        if self.token and any(oauth):
            raise ValueError("`nessie.token` and `nessie.client_id` are two ways to log in; choose one")
        return self


class TrinoSettings(BaseModel):
    """Where Trino is, and as whom it is asked."""

    model_config = _CONFIG

    url: _Url = Field(default="http://127.0.0.1:8080", description="Trino's coordinator.")
    user: str = Field(default="cascade", description="The user that queries on Trino run as.")
    password: SecretStr | None = Field(default=None, description="Password of the user; it needs https.")
