"""Queries of a database, each computed once for all threads and processes, with an old value when the database fails.

CACHE_URL=memcached://localhost:11211 python examples/cached_queries.py
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import msgspec

from metacache import Client, Stampede, connect

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")

# Fresh for the time to live, then kept for an hour: one caller computes, and the others get the old value meanwhile.
POLICY = Stampede(lease=10, serve_stale=3600, refresh_ahead=0.1)


class Product(msgspec.Struct, frozen=True):
    """A row of the table, as the service uses it."""

    sku: str
    name: str
    cents: int


class Catalogue:
    """The products of a database, cached."""

    def __init__(self, database: sqlite3.Connection, cache: Client[Product | None]) -> None:
        self._database = database
        self._cache = cache
        self.queries = 0

    def product(self, sku: str) -> Product | None:
        """Return the product, or None; an absent one is cached too."""
        return self._cache.get_or_compute(sku, lambda: self._select([sku]).get(sku), policy=POLICY)

    def products(self, skus: Sequence[str]) -> dict[str, Product | None]:
        """Return many products, with one query for those that are not cached."""
        return self._cache.get_or_compute_many(skus, self._select, policy=POLICY)

    def change_price(self, sku: str, cents: int) -> None:
        """Change a price; no caller sees the old one once this returns."""
        with self._database:
            self._database.execute("UPDATE products SET cents = ? WHERE sku = ?", (cents, sku))
        self._cache.delete(sku)

    def _select(self, skus: Sequence[str]) -> dict[str, Product | None]:
        self.queries += 1
        marks = ", ".join("?" * len(skus))
        rows = self._database.execute(f"SELECT sku, name, cents FROM products WHERE sku IN ({marks})", skus)
        found = {sku: Product(sku, name, cents) for sku, name, cents in rows}
        return {sku: found.get(sku) for sku in skus}


def new_database() -> sqlite3.Connection:
    """Return a database in memory with two products."""
    database = sqlite3.connect(":memory:")
    with database:
        database.execute("CREATE TABLE products (sku TEXT PRIMARY KEY, name TEXT, cents INTEGER)")
        database.executemany("INSERT INTO products VALUES (?, ?, ?)", [("tea", "Tea", 350), ("pot", "Pot", 1990)])
    return database


def main() -> None:
    """Read each product twice, change a price, and read again."""
    logging.basicConfig(level=logging.INFO)
    cache = connect(CACHE_URL, Product | None, serializer="msgspec", prefix="product:", default_ttl=60)
    with closing(new_database()) as database, cache:
        catalogue = Catalogue(database, cache)
        for sku in ("tea", "pot", "none"):
            cache.delete(sku)
        for _ in range(2):
            for sku in ("tea", "none"):
                print(f"{sku}: {catalogue.product(sku)}")
        print(f"many: {list(catalogue.products(['tea', 'pot', 'none']).values())}")
        catalogue.change_price("tea", 375)
        print(f"tea: {catalogue.product('tea')}")
        print(f"queries: {catalogue.queries}")


if __name__ == "__main__":
    main()
