# pymemcache 4.0.0, as benchmarks and tests use it. Values are bytes; with a serde they are of any class,
# and tests take them for objects.

from pymemcache.client.base import Client as Client
from pymemcache.client.hash import HashClient as HashClient
