import pytest

from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.settings import Mode, Settings, env_names, is_secret, load_settings, with_password

STRONG = {
    "API_SECRET_KEY": "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4eHl6",
    "MLOPS_STORAGE_KEY": "0123456789abcdef" * 4,
    "POSTGRES_PASSWORD": "p4ssw0rd-of-some-length",
    "MINIO_ROOT_PASSWORD": "an0ther-of-some-length",
    "MLOPS_MODE": "production",
    "MLOPS_DATABASE_URL": "postgresql://mlops_app@db/mlops",
    "MLOPS_STORAGE_URL": "s3://bucket",
    "MLOPS_STORAGE_S3_ACCESS_KEY_ID": "mlops",
}
SECRETS = ["API_SECRET_KEY", "MLOPS_STORAGE_KEY", "POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD"]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name, field in Settings.model_fields.items():
        for variable in env_names(field, name):
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.delenv(f"{variable}_FILE", raising=False)


@pytest.fixture
def env(monkeypatch):
    def put(**values):
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return load_settings()

    return put


class TestDocumented:
    def test_every_setting_says_what_it_is_for(self):
        undocumented = [
            name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")
        ]
        assert undocumented == []

    def test_every_name_begins_with_the_prefix_except_the_three_of_deployments_and_those_of_opentelemetry(self):
        names = {env_names(field, name)[0] for name, field in Settings.model_fields.items()}
        others = {name for name in names if not name.startswith(("MLOPS_", "OTEL_"))}
        assert others == {"API_SECRET_KEY", "POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD"}


class TestEnvironment:
    def test_a_wrong_value_names_its_variable(self, env):
        with pytest.raises(ConfigurationError, match="MLOPS_MODEL_REGISTRY_PORT"):
            env(MLOPS_MODEL_REGISTRY_PORT="eighty")

    def test_settings_do_not_change(self, env):
        with pytest.raises(ValueError, match="frozen"):
            env().mode = Mode.PRODUCTION

    def test_a_secret_has_a_short_name_and_a_long_one(self, env):
        assert env(MLOPS_API_SECRET_KEY="long").api_secret_key.get_secret_value() == "long"
        assert env(API_SECRET_KEY="short").api_secret_key.get_secret_value() == "short"

    @pytest.mark.parametrize(
        ("given", "hosts"),
        [
            ("", ()),
            ("a.test", ("a.test",)),
            (" A.test , b.test,, ", ("a.test", "b.test")),
            ("*", ("*",)),
            ("[::1]:80", ("[::1]:80",)),
        ],
    )
    def test_host_lists_are_separated_by_commas(self, env, given, hosts):
        loaded = env(MLOPS_ALLOWED_HOSTS=given, MLOPS_WEBHOOK_ALLOWED_HOSTS=given)
        assert loaded.allowed_hosts == hosts
        assert loaded.webhook_allowed_hosts == hosts

    def test_log_levels_are_read_in_any_case_and_others_refused(self, env):
        assert env(MLOPS_LOG_LEVEL="debug").log_level == "DEBUG"
        with pytest.raises(ConfigurationError, match="MLOPS_LOG_LEVEL"):
            env(MLOPS_LOG_LEVEL="loud")

    @pytest.mark.parametrize("given", ["collector:4318", "grpc://collector:4317", "http://", "4318"])
    def test_an_endpoint_that_is_no_http_url_is_refused(self, env, given):
        with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*http"):
            env(OTEL_EXPORTER_OTLP_ENDPOINT=given)

    @pytest.mark.parametrize("given", ["c4nary", "a=b,c4nary", "=c4nary", "a=c4nary%0d%0ab: c"])
    def test_headers_that_are_no_pairs_are_refused_and_never_shown(self, env, given):
        with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
            env(OTEL_EXPORTER_OTLP_HEADERS=given)
        assert "c4nary" not in str(refused.value)

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ({}, None),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
            ({"MLOPS_OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "http://c/v1/traces"),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "http://c/x"),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, None),
        ],
    )
    def test_traces_go_where_the_standard_variables_say(self, env, given, url):
        assert env(**given).traces_url == url

    def test_a_setting_that_nobody_knows_is_ignored(self, env):
        assert env(MLOPS_NO_SUCH_THING="1").mode is Mode.DEVELOPMENT


class TestFiles:
    @pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if is_secret(field)])
    def test_each_secret_can_come_from_a_file(self, env, tmp_path, name):
        path = tmp_path / "secret"
        path.write_text("name=from a file\n")
        for variable in env_names(Settings.model_fields[name], name):
            loaded = env(**{f"{variable}_FILE": str(path)})
            assert getattr(loaded, name).get_secret_value() == "name=from a file"
            env(**{f"{variable}_FILE": None})

    def test_the_variable_goes_before_the_file(self, env, tmp_path):
        path = tmp_path / "secret"
        path.write_text("file")
        assert env(API_SECRET_KEY="variable", API_SECRET_KEY_FILE=str(path)).api_secret_key.get_secret_value() == "variable"

    def test_a_file_that_cannot_be_read_is_named(self, env, tmp_path):
        with pytest.raises(ConfigurationError, match=r"API_SECRET_KEY_FILE.*nothing-here"):
            env(API_SECRET_KEY_FILE=str(tmp_path / "nothing-here"))

    def test_only_secrets_come_from_files(self, env, tmp_path):
        path = tmp_path / "mode"
        path.write_text("production")
        assert env(MLOPS_MODE_FILE=str(path)).mode is Mode.DEVELOPMENT


class TestProduction:
    def test_strong_secrets_pass(self, env):
        env(**STRONG).check_production()

    def test_development_passes_without_any(self, env):
        env().check_production()

    @pytest.mark.parametrize("name", SECRETS)
    @pytest.mark.parametrize(
        "value", [None, "tiny1", "changeme", "ChangeMe" * 8, "an-example-value-" * 4, "a" * 64, "ab" * 32]
    )
    def test_a_weak_one_is_named_and_never_shown(self, env, name, value):
        with pytest.raises(ConfigurationError) as refused:
            env(**{**STRONG, name: value}).check_production()
        assert name in str(refused.value)
        assert not [other for other in SECRETS if other != name and other in str(refused.value)]
        assert value is None or value not in str(refused.value)

    def test_all_of_them_are_named_at_once(self, env):
        with pytest.raises(ConfigurationError) as refused:
            env(**{**STRONG, **dict.fromkeys(SECRETS)}).check_production()
        assert [name for name in SECRETS if name not in str(refused.value)] == []

    @pytest.mark.parametrize("setting", ["MLOPS_DATABASE_URL", "MLOPS_DATABASE_OWNER_URL"])
    def test_a_weak_password_within_a_url_is_refused_too(self, env, setting):
        with pytest.raises(ConfigurationError, match=setting):
            env(**{**STRONG, setting: "postgresql://mlops_app:postgres@db/mlops"}).check_production()


class TestSecrets:
    def test_none_is_shown_when_settings_are_printed(self, env):
        loaded = env(**STRONG)
        for name in SECRETS:
            assert STRONG[name] not in repr(loaded)
            assert STRONG[name] not in str(loaded.model_dump())

    @pytest.mark.parametrize(
        ("url", "filled"),
        [
            ("postgresql://app@db:5432/m", "postgresql://app:p%40s%2Fs@db:5432/m"),
            ("postgresql://app:own@db/m", "postgresql://app:own@db/m"),
            ("postgresql://app@[::1]:5432/m", "postgresql://app:p%40s%2Fs@[::1]:5432/m"),
            ("postgresql://db/m", "postgresql://mlops_app:p%40s%2Fs@db/m"),
            ("postgresql://app@/m?host=/run/pg", "postgresql://app:p%40s%2Fs@/m?host=/run/pg"),
            ("postgresql:///m?host=/run/pg", "postgresql://mlops_app:p%40s%2Fs@/m?host=/run/pg"),
            ("postgresql://a%40b@db/m", "postgresql://a%40b:p%40s%2Fs@db/m"),
        ],
    )
    def test_a_password_is_put_into_any_url_that_has_none(self, env, url, filled):
        assert with_password(url, env(POSTGRES_PASSWORD="p@s/s").postgres_password) == filled
