"""Every setting of the servers, from the environment alone.

Names are `MLOPS_<FIELD>`, plus the three that deployments already use: `POSTGRES_PASSWORD`, `MINIO_ROOT_PASSWORD` and
`API_SECRET_KEY`, and the `OTEL_*` that OpenTelemetry has named. Each secret can be given as a file instead: `<NAME>_FILE`
holds its path. The environment leaks with any file read (`/proc/self/environ`), so the file is the better way.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from mlops_platform.core.errors import ConfigurationError

MINIMUM_SECRET_LENGTH = 32
MINIMUM_PASSWORD_LENGTH = 12
# What stands in examples, tutorials and other people's compose files. Production refuses each of them.
WEAK_SECRETS = frozenset(
    {"admin", "changeme", "change-me", "default", "example", "minioadmin", "mlops", "password", "postgres", "secret"}
)


class Mode(StrEnum):
    """Development is friendly; production refuses what is unsafe."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """What is written: this and everything graver."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogFormat(StrEnum):
    """How log lines look; `auto` is human-readable on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def _brief(name: str) -> AliasChoices:
    """A secret under the name that deployments use, and under ours."""
    return AliasChoices(name, f"MLOPS_{name}")


def _standard(name: str) -> AliasChoices:
    """A variable that OpenTelemetry has named, and that name under our prefix for this platform alone."""
    return AliasChoices(name, f"MLOPS_{name}")


class Settings(BaseSettings):
    """The settings tree. Frozen: a running process does not change its mind."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="MLOPS_", extra="ignore", frozen=True, populate_by_name=True
    )

    mode: Mode = Field(Mode.DEVELOPMENT, description="`development`, or `production`, which refuses weak secrets.")
    home: Path = Field(Path("~/.mlops"), description="Where the embedded platform keeps its data and generated secrets.")

    host: str = Field("127.0.0.1", description="The address that the services listen on.")
    model_registry_port: int = Field(8000, ge=0, le=65535, description="Port of the Model Registry.")
    feature_store_port: int = Field(8002, ge=0, le=65535, description="Port of the Feature Store.")
    experiment_tracking_port: int = Field(8003, ge=0, le=65535, description="Port of Experiment Tracking.")
    pipeline_orchestrator_port: int = Field(8004, ge=0, le=65535, description="Port of the Pipeline Orchestrator.")
    ab_testing_port: int = Field(8090, ge=0, le=65535, description="Port of A/B Testing.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Host names accepted beside loopback and the platform's own service names; comma-separated.",
    )

    webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Internal `host` or `host:port` that webhooks may call beside public addresses; comma-separated.",
    )

    database_url: str | None = Field(
        None, description="`postgresql://user@host:port/database` of the application role. Absent: the embedded server."
    )
    database_owner_url: str | None = Field(
        None, description="The same for the role that migrates. Absent: `MLOPS_DATABASE_URL` is used."
    )
    postgres_password: SecretStr | None = Field(
        None,
        validation_alias=_brief("POSTGRES_PASSWORD"),
        description="Password for the database URLs that carry none.",
    )
    database_pool_size: int = Field(
        10, ge=1, le=200, description="Database connections a process keeps for reading, and as many for writing, at most."
    )
    database_statement_timeout_seconds: float = Field(30, gt=0, description="A statement that runs longer is cancelled.")
    database_lock_timeout_seconds: float = Field(5, gt=0, description="A statement that waits longer for a lock fails.")

    storage_url: str | None = Field(
        None, description="`file:///path`, `s3://bucket/prefix`, `gs://` or `az://`. Absent: a folder under `MLOPS_HOME`."
    )
    storage_s3_endpoint: str | None = Field(None, description="Endpoint of an S3-compatible store, for `s3://` URLs.")
    storage_s3_access_key_id: str | None = Field(None, description="Access key id for `s3://` URLs.")
    storage_s3_region: str = Field("us-east-1", description="Region for `s3://` URLs.")
    minio_root_password: SecretStr | None = Field(
        None, validation_alias=_brief("MINIO_ROOT_PASSWORD"), description="Secret access key for `s3://` URLs."
    )
    storage_encryption: bool = Field(default=True, description="Whether new blobs are sealed with AES-256-GCM.")
    storage_key: SecretStr | None = Field(
        None,
        description="Key-encryption key: 32 bytes as 64 hex digits. Generated under `MLOPS_HOME` when embedded.",
    )
    redis_url: str | None = Field(None, description="`redis://` of the online store. Absent: the embedded store.")

    api_secret_key: SecretStr | None = Field(
        None,
        validation_alias=_brief("API_SECRET_KEY"),
        description="Root of the key pepper, token signatures and cursors; at least 32 characters.",
    )

    log_level: LogLevel = Field(LogLevel.INFO, description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    log_format: LogFormat = Field(LogFormat.AUTO, description="`auto`, `json` or `console`.")
    access_log_sample: float = Field(0.01, ge=0, le=1, description="Share of successful hot-path requests that are logged.")
    metrics_public: bool = Field(default=True, description="Whether `/metrics` answers without a credential.")

    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        validation_alias=_standard("OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base URL of an OpenTelemetry collector (OTLP over HTTP) that gets traces. Absent: none are exported.",
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None,
        validation_alias=_standard("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="The whole URL for traces, where it is not the base with `/v1/traces`.",
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None,
        validation_alias=_standard("OTEL_EXPORTER_OTLP_HEADERS"),
        description="Headers for the collector: `name=value` pairs separated by commas, values percent-encoded.",
    )
    otel_service_name: str | None = Field(
        None,
        validation_alias=_standard("OTEL_SERVICE_NAME"),
        description="`service.name` of all spans of this process. Absent: each service's own name.",
    )
    otel_traces_sampler_arg: float = Field(
        1.0,
        ge=0,
        le=1,
        validation_alias=_standard("OTEL_TRACES_SAMPLER_ARG"),
        description="Share of the traces that begin here and are exported; in others the caller's decision holds.",
    )
    otel_bsp_max_queue_size: int = Field(
        2048,
        ge=1,
        le=1_000_000,
        validation_alias=_standard("OTEL_BSP_MAX_QUEUE_SIZE"),
        description="Spans that wait for the collector, at most; further ones are dropped and counted.",
    )
    otel_bsp_schedule_delay: int = Field(
        5000,
        ge=1,
        le=600_000,
        validation_alias=_standard("OTEL_BSP_SCHEDULE_DELAY"),
        description="Milliseconds that a span waits at most before its batch is sent.",
    )
    otel_sdk_disabled: bool = Field(
        default=False,
        validation_alias=_standard("OTEL_SDK_DISABLED"),
        description="Whether nothing is exported although an endpoint is set.",
    )

    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest JSON body; larger ones are 413.")
    max_upload_bytes: int = Field(64 * 1024**3, ge=1024, description="Largest streamed upload (artifacts).")
    max_ingest_bytes: int = Field(256 * 1024**2, ge=1024, description="Largest Arrow or Parquet body of a feature ingest.")
    max_json_depth: int = Field(32, ge=4, le=200, description="Deepest nesting of a JSON body.")
    max_page_size: int = Field(1000, ge=100, le=10_000, description="Largest `page_size`; the default page is 100.")
    request_timeout_seconds: float = Field(60, gt=0, description="How long a request that is not a stream may take.")
    max_concurrent_requests: int = Field(
        1000, ge=1, description="Requests in flight per service; further ones are shed with 503."
    )
    idempotency_hours: float = Field(24, gt=0, description="How long the answer to an `Idempotency-Key` is kept.")

    worker_slots: int = Field(2, ge=0, le=256, description="Task processes that one worker runs at a time.")
    drain_seconds: float = Field(10, ge=0, description="How long running requests may finish after a stop signal.")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("allowed_hosts", "webhook_allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip().lower() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator(
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_traces_endpoint",
        "otel_exporter_otlp_headers",
        "otel_service_name",
        "otel_traces_sampler_arg",
        "otel_bsp_max_queue_size",
        "otel_bsp_schedule_delay",
        "otel_sdk_disabled",
        mode="before",
    )
    @classmethod
    def _unset_if_empty(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[str(info.field_name)].default if value == "" else value

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            raise ValueError("must be an http:// or https:// URL; OTLP over gRPC is not spoken")
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _check_headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(
            name and is_pair and unquote(it).isprintable() for name, is_pair, it in _pairs(value)
        ):
            raise ValueError("must be name=value pairs separated by commas")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvSettingsSource(settings_cls), SecretFiles(settings_cls)

    def model_post_init(self, context: Any) -> None:
        object.__setattr__(self, "home", self.home.expanduser().absolute())

    @property
    def embedded_database(self) -> bool:
        """Whether `mlops up` brings its own PostgreSQL."""
        return self.database_url is None

    @property
    def traces_url(self) -> str | None:
        """Where spans go; None when they go nowhere."""
        if self.otel_sdk_disabled:
            return None
        if self.otel_exporter_otlp_traces_endpoint:
            return self.otel_exporter_otlp_traces_endpoint
        base = self.otel_exporter_otlp_endpoint
        return f"{base.rstrip('/')}/v1/traces" if base else None

    @property
    def traces_headers(self) -> dict[str, str]:
        """What the collector is sent beside the spans: often a credential."""
        given = self.otel_exporter_otlp_headers
        return {name: unquote(value) for name, _, value in _pairs(given)} if given else {}

    def check_production(self) -> None:
        """Refuse to start in production with a secret that is missing, short or an example. Names each."""
        if self.mode is not Mode.PRODUCTION:
            return
        required = dict.fromkeys(self._required_secrets())
        wrong = [f"{name} {problem}" for name, secret, least in required if (problem := _weakness(secret, least))]
        if wrong:
            raise ConfigurationError(
                "Production mode refuses to start: "
                + "; ".join(wrong)
                + ". Set each, or give it as a file with <NAME>_FILE."
            )

    def _required_secrets(self) -> list[tuple[str, SecretStr | None, int]]:
        needed: list[tuple[str, SecretStr | None, int]] = [
            ("API_SECRET_KEY", self.api_secret_key, MINIMUM_SECRET_LENGTH),
            ("MLOPS_STORAGE_KEY", self.storage_key, 64),
        ]
        needed += [self._password_of(url, setting) for setting, url in self._database_urls()]
        if self.storage_url is not None and self.storage_url.startswith("s3://") and self.storage_s3_access_key_id:
            needed.append(("MINIO_ROOT_PASSWORD", self.minio_root_password, MINIMUM_PASSWORD_LENGTH))
        return needed

    def _database_urls(self) -> list[tuple[str, str]]:
        urls = {"MLOPS_DATABASE_URL": self.database_url, "MLOPS_DATABASE_OWNER_URL": self.database_owner_url}
        return [(setting, url) for setting, url in urls.items() if url is not None]

    def _password_of(self, url: str, setting: str) -> tuple[str, SecretStr | None, int]:
        own = urlsplit(url).password
        if own is None:
            return "POSTGRES_PASSWORD", self.postgres_password, MINIMUM_PASSWORD_LENGTH
        return f"the password in {setting}", SecretStr(unquote(own)), MINIMUM_PASSWORD_LENGTH

    def database_dsn(self, *, owner: bool = False) -> str:
        """The database URL with its password filled in."""
        url = self.database_owner_url if owner and self.database_owner_url else self.database_url
        if url is None:
            raise ConfigurationError("MLOPS_DATABASE_URL is not set, and no embedded server was started.")
        return with_password(url, self.postgres_password)


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `<NAME>_FILE` for each secret field."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for name in env_names(field, field_name):
            path = os.environ.get(f"{name}_FILE")
            if path:
                try:
                    return Path(path).read_text(encoding="utf-8").strip(), field_name, False
                except OSError as error:
                    raise ConfigurationError(f"{name}_FILE: cannot read {path!r}: {error.strerror}.") from error
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
            if is_secret(field)
        }
        return {name: value for name, value in found.items() if value is not None}


def is_secret(field: FieldInfo) -> bool:
    """Whether a settings field holds a secret."""
    return "SecretStr" in str(field.annotation)


def env_names(field: FieldInfo, field_name: str) -> tuple[str, ...]:
    """The environment variables that set a field, the documented one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in field.validation_alias.choices)
    return (f"MLOPS_{field_name.upper()}",)


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process, or one clear line that says which variable is wrong."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = "; ".join(f"{_env_name(str(e['loc'][0]))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"The settings are not valid: {wrong}.") from error


def with_password(url: str, password: SecretStr | None) -> str:
    """A database URL with the given password, unless it carries its own."""
    parts = urlsplit(url)
    if parts.password or password is None:
        return url
    # What follows the user is kept as it is written: IPv6 in brackets, a port, or nothing for a socket.
    where = parts.netloc.rpartition("@")[2]
    netloc = f"{parts.username or 'mlops_app'}:{quote(password.get_secret_value(), safe='')}@{where}"
    return urlunsplit(parts._replace(netloc=netloc))


def _env_name(location: str) -> str:
    field = Settings.model_fields.get(location)
    return env_names(field, location)[0] if field else location


def _pairs(headers: SecretStr) -> list[tuple[str, str, str]]:
    parts = (part.partition("=") for part in headers.get_secret_value().split(",") if part.strip())
    return [(name.strip().lower(), is_pair, value.strip()) for name, is_pair, value in parts]


def _weakness(secret: SecretStr | None, least: int) -> str | None:
    if secret is None:
        return "is missing"
    value = secret.get_secret_value()
    if value.lower() in WEAK_SECRETS or "example" in value.lower() or "change" in value.lower():
        return "is a default or an example value"
    if len(value) < least:
        return f"is shorter than {least} characters"
    if len(set(value)) < 8:
        return "has too few different characters"
    return None
