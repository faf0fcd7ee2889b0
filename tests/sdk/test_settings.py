"""Where the client looks for addresses and credentials, and to whom it gives them."""

import json

import pytest

from mlops_platform.sdk.errors import ConfigurationError
from mlops_platform.sdk.settings import CLIENT_VARIABLES, URL_VARIABLES, Service, load_client_settings


@pytest.fixture
def home(tmp_path):
    """What `mlops up` leaves behind."""
    urls = {"registry": "http://127.0.0.1:9000/", "tracking": "http://127.0.0.1:9003"}
    (tmp_path / "client.json").write_text(json.dumps({"urls": urls, "project": "default"}))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api_key").write_text("mlops_user_local\n")
    return tmp_path


def load(home, **environ):
    return load_client_settings({"MLOPS_HOME": str(home), **environ})


class TestAddresses:
    def test_without_anything_they_are_the_default_ports_of_this_machine(self, tmp_path):
        settings = load(tmp_path)
        ports = [settings.urls[service].rsplit(":", 1)[1] for service in Service]
        assert ports == ["8000", "8002", "8003", "8004", "8090"]
        assert settings.credential is None

    def test_what_mlops_up_left_is_found(self, home):
        settings = load(home)
        assert settings.urls[Service.REGISTRY] == "http://127.0.0.1:9000"
        assert settings.urls[Service.FEATURES] == "http://127.0.0.1:8002"

    @pytest.mark.parametrize("service", list(Service))
    def test_the_environment_wins_over_what_was_left(self, home, service):
        settings = load(home, **{URL_VARIABLES[service]: "https://mlops.acme.test/x/"})
        assert settings.urls[service] == "https://mlops.acme.test/x"

    def test_an_address_with_a_password_is_refused_and_the_password_is_not_said(self, tmp_path):
        environ = {"MLOPS_HOME": str(tmp_path), "MLOPS_MODEL_REGISTRY_URL": "https://ada:canary@registry.example"}
        with pytest.raises(ConfigurationError, match="MLOPS_MODEL_REGISTRY_URL") as refused:
            load_client_settings(environ)
        assert "canary" not in str(refused.value)

    @pytest.mark.parametrize("bad", ["localhost:8000", "ftp://x", "http://", "nonsense", "http://[::1", "http://h:x"])
    def test_an_address_that_is_none_is_said_with_its_variable(self, tmp_path, bad):
        with pytest.raises(ConfigurationError, match="MLOPS_EXPERIMENT_TRACKING_URL"):
            load(tmp_path, MLOPS_EXPERIMENT_TRACKING_URL=bad)

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"urls": 3}', '{"urls": {"registry": 5}}'])
    def test_a_broken_client_file_is_one_clear_line(self, tmp_path, content):
        (tmp_path / "client.json").write_text(content)
        with pytest.raises(ConfigurationError, match=r"client\.json"):
            load(tmp_path)


class TestCredentials:
    def test_the_key_of_the_environment_wins_over_the_local_one(self, home):
        assert load(home, MLOPS_API_KEY="mlops_user_env").credential == "mlops_user_env"

    def test_a_service_token_is_used_when_there_is_no_key(self, home):
        assert load(home, MLOPS_SERVICE_TOKEN="token").credential == "token"

    def test_a_key_can_be_given_as_a_file(self, home, tmp_path):
        (tmp_path / "key").write_text("mlops_user_file\n")
        assert load(home, MLOPS_API_KEY_FILE=str(tmp_path / "key")).credential == "mlops_user_file"

    def test_a_key_file_that_cannot_be_read_is_said(self, tmp_path):
        with pytest.raises(ConfigurationError, match="MLOPS_API_KEY_FILE"):
            load(tmp_path, MLOPS_API_KEY_FILE=str(tmp_path / "absent"))

    def test_the_local_key_goes_to_this_machine_and_nowhere_else(self, home):
        settings = load(home, MLOPS_MODEL_REGISTRY_URL="https://mlops.elsewhere.test")
        assert settings.credential_for("https://mlops.elsewhere.test") is None
        assert settings.credential_for(settings.urls[Service.TRACKING]) == "mlops_user_local"

    def test_the_local_project_does_not_go_with_another_platforms_key(self, home):
        assert load(home).project == "default"
        assert load(home, MLOPS_API_KEY="mlops_user_env").project is None
        assert load(home, MLOPS_API_KEY="mlops_user_env", MLOPS_PROJECT="fraud").project == "fraud"

    def test_the_credential_is_not_in_the_repr(self, home):
        assert "mlops_user_local" not in repr(load(home))


class TestNumbers:
    @pytest.mark.parametrize("bad", ["0", "-1", "soon", "nan", "inf"])
    def test_a_number_that_is_none_is_said_with_its_variable(self, tmp_path, bad):
        with pytest.raises(ConfigurationError, match="MLOPS_TIMEOUT_SECONDS"):
            load(tmp_path, MLOPS_TIMEOUT_SECONDS=bad)


def test_every_variable_that_is_read_is_described(tmp_path):
    read = set()

    class Watching(dict):
        def get(self, key, default=None):
            read.add(key.removesuffix("_FILE"))
            return super().get(key, default)

    load_client_settings(Watching(MLOPS_HOME=str(tmp_path)))
    assert read == set(CLIENT_VARIABLES)
