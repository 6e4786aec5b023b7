"""The FastAPI service: with the fake transport, with a real memcached, and without any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from examples import fastapi_service
from examples.fastapi_service import User, app, get_cache, get_database
from metacache import AsyncClient, load_serializer
from metacache.testing import AsyncFakeTransport, Memcached


@pytest.fixture
def database() -> Iterator[fastapi_service.Database]:
    """A database whose reads the test can count."""
    database = fastapi_service.Database()
    app.dependency_overrides[get_database] = lambda: database
    yield database
    app.dependency_overrides.clear()


@pytest.fixture
def service(database: fastapi_service.Database) -> TestClient:
    """The service on a fake memcached; nothing opens a connection."""
    cache = AsyncClient(AsyncFakeTransport(), load_serializer("pydantic", User), prefix="user:")
    app.dependency_overrides[get_cache] = lambda: cache
    assert database.reads == 0
    return TestClient(app)


def test_the_second_read_of_a_user_does_not_reach_the_database(
    service: TestClient, database: fastapi_service.Database
) -> None:
    assert service.get("/users/ada").json() == {"name": "Ada", "age": 36}
    assert service.get("/users/ada").json() == {"name": "Ada", "age": 36}
    assert database.reads == 1
    assert service.get("/cache").json() == {"hits": 1, "misses": 1, "errors": 0}


def test_a_written_user_is_read_from_the_cache(service: TestClient, database: fastapi_service.Database) -> None:
    service.get("/users/ada")
    assert service.put("/users/ada", json={"name": "Ada", "age": 37}).status_code == 200
    assert service.get("/users/ada").json() == {"name": "Ada", "age": 37}
    assert database.reads == 1
    assert database.users["ada"] == User(name="Ada", age=37)


def test_a_user_that_does_not_exist_is_a_404(service: TestClient) -> None:
    assert service.get("/users/bob").status_code == 404


def test_the_lifespan_opens_a_cache_that_two_starts_of_the_service_share(
    memcached: Memcached, database: fastapi_service.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastapi_service, "CACHE_URL", memcached.url)
    for _ in range(2):
        with TestClient(app) as service:
            assert service.get("/users/ada").json() == {"name": "Ada", "age": 36}
    assert database.reads == 1


def test_the_service_works_without_its_cache(
    database: fastapi_service.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastapi_service, "CACHE_URL", "memcached://127.0.0.1:1")
    with TestClient(app) as service:
        assert service.get("/users/ada").json() == {"name": "Ada", "age": 36}
        assert service.get("/users/ada").json() == {"name": "Ada", "age": 36}
        assert service.get("/cache").json() == {"hits": 0, "misses": 0, "errors": 2}
    assert database.reads == 2
