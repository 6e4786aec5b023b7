# The part of pymemcache 4.0.0 that benchmarks and tests use. Values are bytes. With a serde they are of any class;
# tests annotate these as object.

from pymemcache.client.base import Client as Client
from pymemcache.client.hash import HashClient as HashClient
