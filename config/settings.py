"""Environment in, frozen and checked settings out, or one error that lists every fault.

`load_settings` reads `.env` and the environment (which wins) into plain
models. The models know nothing of the environment, so that tests and the
sandbox build them directly; `_SECTIONS` below says which variable fills which
field. pydantic's checks are used, but not its settings classes: one model
serves two servers under two prefixes, and all faults of all sections must
reach the operator in one message that never shows a secret.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from config import secrecy
from config.errors import PREFIXES, ConfigError
from config.tables import DEFAULT_TABLES_FILE

MySQLSSLMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]
PostgresSSLMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

_MIB: Final = 1024 * 1024
_byte_size: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def _bytes(value: object) -> object:
    return int(_byte_size.validate_python(value)) if isinstance(value, str) else value


def _bytes_or_off(value: object) -> object:
    return 0 if value in ("off", "OFF", "Off") else _bytes(value)


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
PollSeconds = Annotated[float, Field(gt=0, le=20)]
"""So often a daemon looks for requests; one that says nothing for a minute is taken for dead."""
Name = Annotated[str, Field(min_length=1)]
ServerId = Annotated[int, Field(ge=1, le=2**32 - 1)]
Rows = Annotated[int, Field(ge=1, le=10_000_000)]
CopyConnections = Annotated[int, Field(ge=1, le=16)]
Bytes = Annotated[int, Field(ge=1024, le=1024 * _MIB), BeforeValidator(_bytes)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )


class _Server(_Frozen):
    """What the three servers have in common. TLS files are paths to PEM files."""

    host: Name
    user: Name
    password: SecretStr = SecretStr("")
    ssl_ca: Path | None = None
    ssl_cert: Path | None = None
    ssl_key: Path | None = None
    connect_timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _tls_files_make_sense(self) -> _Server:
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("SSL_CERT and SSL_KEY belong together: set both or neither")
        return self


class MySQLServer(_Server):
    """How to reach one MySQL or MariaDB server and the database on it that matters to us."""

    role: Literal["source", "replica"]
    port: Port
    db: Name
    ssl_mode: Annotated[MySQLSSLMode, BeforeValidator(_lowered)] = "preferred"

    @property
    def label(self) -> str:
        """The server in a message: role, host and port, for instance "source db1:3306"."""
        return f"{self.role} {self.host}:{self.port}"

    @model_validator(mode="after")
    def _ca_is_used(self) -> MySQLServer:
        if self.ssl_ca is not None and not self.ssl_mode.startswith("verify"):
            raise ValueError(
                f"SSL_CA is not looked at with SSL_MODE={self.ssl_mode};"
                " set SSL_MODE to verify_ca or verify_identity"
            )
        return self


class PostgresServer(_Server):
    """How to reach the analytics database; `schema_name` is where `raw` lives."""

    port: Port = 5432
    db: Name
    schema_name: Annotated[Name, Field(max_length=63)] = "raw"
    ssl_mode: Annotated[PostgresSSLMode, BeforeValidator(_lowered)] = "prefer"

    @property
    def label(self) -> str:
        """The server in a message, for instance "analytics localhost:5432"."""
        return f"analytics {self.host}:{self.port}"


class ReplicatorTuning(_Frozen):
    """Leg 1. `server_id` is what the source knows us by; sizes are bytes, times seconds."""

    server_id: ServerId
    heartbeat_seconds: Seconds = 5.0
    batch_bytes: Bytes = _MIB
    copy_chunk_rows: Rows = 50_000
    copy_connections: Annotated[int, Field(ge=1, le=16)] = 2
    copy_bytes_per_second: Annotated[int, Field(ge=0), BeforeValidator(_bytes)] = 0
    copy_gap_seconds: Seconds = 1.0
    copy_lock: Annotated[Literal["never", "short"], BeforeValidator(_lowered)] = "never"
    on_conflict: Annotated[Literal["halt", "repair"], BeforeValidator(_lowered)] = "halt"
    poll_seconds: PollSeconds = 0.5
    metrics_port: Port = 9405
    metrics_host: Name = "127.0.0.1"


class LoaderTuning(_Frozen):
    """Leg 2. `server_id` is what the replica knows us by; a batch ends at the first limit."""

    server_id: ServerId
    heartbeat_seconds: Seconds = 5.0
    batch_rows: Rows = 50_000
    batch_bytes: Bytes = 16 * _MIB
    batch_seconds: Seconds = 1.0
    copy_connections: CopyConnections = 2
    poll_seconds: PollSeconds = 0.5
    rename_seconds: Seconds = 10.0
    replacement_seconds: Seconds = 300.0
    binlog_reserve_bytes: Annotated[int, Field(ge=0), BeforeValidator(_bytes_or_off)] = 1024 * _MIB
    metrics_port: Port = 9406
    metrics_host: Name = "127.0.0.1"
    privacy_key: Annotated[SecretStr, Field(min_length=32)] | None = None


class _Common(_Frozen):
    """What both processes share beside the servers."""

    tables_file: Path = DEFAULT_TABLES_FILE
    log_level: Annotated[LogLevel, BeforeValidator(_lowered)] = "info"
    log_format: Annotated[LogFormat, BeforeValidator(_lowered)]


class Settings(_Common):
    """Everything that a process needs to know from outside, checked and frozen."""

    source: MySQLServer
    replication: MySQLServer
    analytics: PostgresServer
    replicator: ReplicatorTuning
    loader: LoaderTuning


@dataclass(frozen=True)
class _Section:
    """One model and the variables that fill it: PREFIX_FIELD unless `renamed` says otherwise."""

    name: str
    prefix: str
    model: type[_Frozen]
    defaults: Mapping[str, object]
    renamed: Mapping[str, str]

    def variable(self, field: str) -> str:
        return f"{self.prefix}_{self.renamed.get(field, field.upper())}"

    def fields(self) -> list[str]:
        return [name for name in self.model.model_fields if name != "role"]


def _sections() -> tuple[_Section, ...]:
    source = {"role": "source", "port": 3306, "db": "opendental"}
    replica = {"role": "replica", "port": 3305, "db": "opendental_replication"}
    analytics = {"port": 5432, "db": "opendental_analytics"}
    return (
        _Section("source", PREFIXES["source"], MySQLServer, source, {}),
        _Section("replication", PREFIXES["replica"], MySQLServer, replica, {}),
        _Section(
            "analytics", PREFIXES["analytics"], PostgresServer, analytics, {"schema_name": "SCHEMA"}
        ),
        _Section("replicator", "REPLICATOR", ReplicatorTuning, {}, {}),
        _Section("loader", "LOADER", LoaderTuning, {}, {}),
        _Section("", "REPLICATOR", _Common, {}, {"tables_file": "TABLES"}),
    )


_SECTIONS: Final = _sections()
SERVERS: Final = ("source", "replication", "analytics")
SERVERS_OF: Final = {
    "replicator": ("source", "replication"),
    "loader": ("replication", "analytics"),
}
"""Those that a leg connects to."""


def known_variables() -> tuple[str, ...]:
    """Every variable that `load_settings` looks at, in the order of the settings."""
    names = [section.variable(field) for section in _SECTIONS for field in section.fields()]
    files = [f"{section.prefix}_PASSWORD_FILE" for section in _SECTIONS if section.name in SERVERS]
    return (*names, *files, "LOADER_PRIVACY_KEY_FILE")


def load_settings(
    env_file: Path | None = Path(".env"),
    environ: Mapping[str, str] | None = None,
    *,
    leg: str | None = None,
) -> Settings:
    """Settings out of `environ` (the process's own by default) over `env_file`.

    A daemon is a `leg` and connects to two of the servers: it need not be told the third one's
    password, and its unit does not tell it.

    Raises one ConfigError that lists every fault, each with its variable, its value unless that
    is a secret, and what is allowed. A missing `.env` is fine. An empty value counts as unset.
    """
    given = secrecy.environment() if environ is None else environ
    faults: list[str] = []
    values = {**_read_env_file(env_file, faults), **{k: v for k, v in given.items() if v.strip()}}
    parts: dict[str, _Frozen] = {}
    for section in _SECTIONS:
        secret = leg is None or section.name in SERVERS_OF[leg]
        part = _load_section(section, values, parts, faults, secret=secret)
        if part is not None:
            parts[section.name] = part
    faults.extend(_faults_between(parts))
    if faults:
        raise _config_error(faults)
    return _assembled(parts)


def _read_env_file(path: Path | None, faults: list[str]) -> dict[str, str]:
    if path is None or (path == Path(".env") and not path.exists()):
        return {}
    try:
        with path.open(encoding="utf-8") as stream:
            # No ${…} in values: a password may contain just that.
            read = dotenv_values(stream=stream, interpolate=False)
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        faults.append(f"{path}: cannot be read: {reason}")
        return {}
    return {name: value for name, value in read.items() if value and value.strip()}


def _load_section(
    section: _Section,
    values: Mapping[str, str],
    parts: Mapping[str, _Frozen],
    faults: list[str],
    *,
    secret: bool,
) -> _Frozen | None:
    """`secret`: a server's password is needed."""
    raw: dict[str, object] = {**section.defaults, **_computed_defaults(section, parts)}
    before = len(faults)
    for field in section.fields():
        variable = section.variable(field)
        if variable in values:
            raw[field] = values[variable]
    if section.name in SERVERS:
        raw.pop("password", None)
        password = _password(section, values, faults) if secret else None
        if password is not None:
            raw["password"] = SecretStr(password)
    if section.model is LoaderTuning:
        key = _secret(section.variable("privacy_key"), values, faults)
        raw.pop("privacy_key", None)
        if key is not None:
            raw["privacy_key"] = SecretStr(key)
    model = _checked(section, raw, values, faults)
    _check_files(section, raw, faults)
    return model if len(faults) == before else None


def _computed_defaults(section: _Section, parts: Mapping[str, _Frozen]) -> dict[str, object]:
    if section.model in (ReplicatorTuning, LoaderTuning):
        replica = parts.get("replication")
        if not isinstance(replica, MySQLServer):
            return {"server_id": 1}  # never used: the replica's own faults are reported
        return {"server_id": derived_server_id(section.name, replica)}
    if section.model is _Common:
        return {"log_format": "console" if sys.stderr.isatty() else "json"}
    return {}


def derived_server_id(leg: str, replica: MySQLServer) -> int:
    """A replica-client id in [2**31, 2**32 - 2], the same for a leg and replica wherever it runs.

    The upper half keeps clear of the small numbers that people give to servers; the two legs
    differ in the lowest bit.
    """
    place = f"{replica.host}|{replica.port}|{replica.db}".encode()
    number = int.from_bytes(hashlib.sha256(place).digest()[:4], "big") % (2**30 - 1)
    return 2**31 + 2 * number + (leg == "loader")


def _password(section: _Section, values: Mapping[str, str], faults: list[str]) -> str | None:
    """From X_PASSWORD, else the file X_PASSWORD_FILE, else systemd's credential x_password."""
    variable = section.variable("password")
    before = len(faults)
    found = _secret(variable, values, faults)
    if found is not None or len(faults) > before:
        return found
    if section.variable("ssl_cert") not in values:  # a client certificate may stand in for it
        message = f"{variable} is missing{_meant(variable, values)}; set it, or {variable}_FILE"
        faults.append(message + f", or the systemd credential {variable.lower()}")
    return None


def _secret(variable: str, values: Mapping[str, str], faults: list[str]) -> str | None:
    """From the variable itself, else the file that X_FILE names, else systemd's credential."""
    if variable in values:
        return values[variable]
    if f"{variable}_FILE" in values:
        return _read_secret(f"{variable}_FILE", Path(values[f"{variable}_FILE"]), faults)
    credential = Path(values.get("CREDENTIALS_DIRECTORY", "")) / variable.lower()
    if "CREDENTIALS_DIRECTORY" in values and _may_be_there(credential):
        return _read_secret(f"credential {variable.lower()}", credential, faults)
    return None


def _may_be_there(path: Path) -> bool:
    """Also where its directory does not let us look: then reading it says so."""
    try:
        return path.exists()
    except OSError:
        return True


def _read_secret(source: str, path: Path, faults: list[str]) -> str | None:
    try:
        secret = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        faults.append(f"{source}={path}: cannot be read: {reason}")
        return None
    if not secret:
        faults.append(f"{source}={path}: the file is empty; it must hold the password")
        return None
    return secret


def _checked(
    section: _Section, raw: Mapping[str, object], values: Mapping[str, str], faults: list[str]
) -> _Frozen | None:
    try:
        return section.model.model_validate(raw)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        faults.extend(_worded(error, section, raw, values) for error in errors)
        return None


def _worded(
    error: ErrorDetails,
    section: _Section,
    raw: Mapping[str, object],
    values: Mapping[str, str],
) -> str:
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # a check over several fields, which names them by their suffix
        return re.sub(r"\bSSL_", f"{section.prefix}_SSL_", said)
    field = str(error["loc"][0])
    variable = section.variable(field)
    if error["type"] == "missing":
        return f"{variable} is missing{_meant(variable, values)}"
    shown = "" if field in ("password", "privacy_key") else f"={raw.get(field)}"
    return f"{variable}{shown}: {said[:1].lower()}{said[1:]}"


def _meant(variable: str, values: Mapping[str, str]) -> str:
    unknown = sorted(set(values) - set(known_variables()))
    close = get_close_matches(variable, unknown, n=1, cutoff=0.9)
    return f" (is {close[0]} meant to be it?)" if close else ""


def _check_files(section: _Section, raw: Mapping[str, object], faults: list[str]) -> None:
    for field in ("ssl_ca", "ssl_cert", "ssl_key", "tables_file"):
        value = raw.get(field)
        if not isinstance(value, str):
            continue
        if not Path(value).is_file() or not os.access(value, os.R_OK):
            faults.append(f"{section.variable(field)}={value}: must be a file that we can read")


def _faults_between(parts: Mapping[str, _Frozen]) -> list[str]:
    source, replica = parts.get("source"), parts.get("replication")
    if not (isinstance(source, MySQLServer) and isinstance(replica, MySQLServer)):
        return []
    if (_place(source.host), source.port) != (_place(replica.host), replica.port):
        return []
    return [
        f"MYSQL_REPLICATION_HOST={replica.host}, MYSQL_REPLICATION_PORT={replica.port}:"
        " is the source itself; the replica must be a server of its own"
    ]


def _place(host: str) -> str:
    return "127.0.0.1" if host.lower() in ("localhost", "::1", "127.0.0.1") else host.lower()


def _config_error(faults: list[str]) -> ConfigError:
    count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
    message = "\n".join([f"{count} wrong:", *(f"  - {fault}" for fault in faults)])
    hint = "Set these in the environment or in .env; config/env.example shows every variable."
    return ConfigError(message, hint, tuple(faults))


def _assembled(parts: Mapping[str, _Frozen]) -> Settings:
    fields: dict[str, Any] = {name: part for name, part in parts.items() if name}
    common = parts[""]
    fields |= {name: getattr(common, name) for name in type(common).model_fields}
    return Settings(**fields)
