"""A FastAPI service that keeps users in memcached, in front of a database that is slow.

CACHE_URL=memcached://localhost:11211 uvicorn examples.fastapi_service:app
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from metacache import AsyncClient, connect_async

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")


class User(BaseModel):
    """A user, as the database, the cache and the JSON of the service have it."""

    name: str
    age: int


class Database:
    """Stands for your database. It counts its reads, so that you see the effect of the cache."""

    def __init__(self) -> None:
        self.users = {"ada": User(name="Ada", age=36)}
        self.reads = 0

    async def load(self, user_id: str) -> User | None:
        """Return the user, or None."""
        self.reads += 1
        return self.users.get(user_id)

    async def save(self, user_id: str, user: User) -> None:
        """Store the user."""
        self.users[user_id] = user


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open the cache when the service starts, and close it when the service ends."""
    async with connect_async(
        CACHE_URL,
        User,
        serializer="pydantic",
        prefix="user:",
        default_ttl=300,
        timeout=0.25,
        on_error="ignore",
    ) as cache:
        app.state.cache = cache
        app.state.database = Database()
        yield


def get_cache(request: Request) -> AsyncClient[User]:
    """Return the cache of the running service."""
    cache: AsyncClient[User] = request.app.state.cache
    return cache


def get_database(request: Request) -> Database:
    """Return the database of the running service."""
    database: Database = request.app.state.database
    return database


Cache = Annotated[AsyncClient[User], Depends(get_cache)]
Storage = Annotated[Database, Depends(get_database)]

app = FastAPI(lifespan=lifespan)


@app.get("/users/{user_id}")
async def read_user(user_id: str, cache: Cache, database: Storage) -> User:
    """Return a user from the cache, else from the database."""

    async def load() -> User:
        user = await database.load(user_id)
        if user is None:
            raise HTTPException(404, "no such user")
        return user

    return await cache.get_or_compute(user_id, load)


@app.put("/users/{user_id}")
async def write_user(user_id: str, user: User, cache: Cache, database: Storage) -> User:
    """Store a user in the database, then in the cache."""
    await database.save(user_id, user)
    await cache.set(user_id, user)
    return user


@app.get("/cache")
async def read_cache(cache: Cache) -> dict[str, int]:
    """Return how well the cache works, for your monitoring."""
    counts = cache.statistics
    return {"hits": counts.hits, "misses": counts.misses, "errors": counts.errors}
