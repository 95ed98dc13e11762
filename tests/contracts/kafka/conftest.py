"""One real broker for all tests here; a test that hurts it starts one of its own."""

from collections.abc import Iterator

import pytest

from tests.rigs import kafka as rig


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Kafka]:
    with rig.running(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Kafka]:
    with rig.running(tmp_path_factory.mktemp("own")) as running:
        yield running


@pytest.fixture
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Kafka]:
    with rig.running(tmp_path_factory.mktemp("three"), 3) as running:
        yield running
