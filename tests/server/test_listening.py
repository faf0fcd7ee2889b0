"""Ports: what is said when one cannot be had, and that nothing is left half bound."""

import os
import socket

import pytest

from mlops_platform.core.errors import ConfigurationError
from mlops_platform.server.catalog import CATALOG
from mlops_platform.server.listening import bind, bind_all, port_owner
from tests.factories.running import free_ports


@pytest.fixture
def taken():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_taken_port_names_its_owner_and_the_way_round(taken):
    with pytest.raises(ConfigurationError) as refused:
        bind("127.0.0.1", taken, setting="feature_store_port")
    assert f"Port {taken} is taken by" in str(refused.value)
    assert f"(process {os.getpid()})" in str(refused.value)
    assert f"MLOPS_FEATURE_STORE_PORT={taken + 10000} mlops up" in str(refused.value)


def test_a_free_port_has_no_owner():
    assert port_owner(next(iter(free_ports().values()))) is None


def test_an_address_that_is_not_ours_is_told_with_its_setting():
    with pytest.raises(ConfigurationError, match=r"Cannot listen on 192\.0\.2\.1:.*MLOPS_HOST"):
        bind("192.0.2.1", 0, setting="model_registry_port")


def test_answers_do_not_wait_for_acknowledgements():
    with bind("127.0.0.1", 0, setting="model_registry_port") as bound:
        assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_when_one_port_is_taken_none_stays_bound(settings, taken):
    ports = list(free_ports().values())
    own = {entry.port_setting: port for entry, port in zip(CATALOG, [*ports[:-1], taken], strict=True)}
    with pytest.raises(ConfigurationError):
        bind_all(settings.model_copy(update=own))
    for port in ports[:-1]:
        bind("127.0.0.1", port, setting="x").close()
