# pymemcache 4.0.0, as the benchmarks use it: without serde, so that values are bytes.

from pymemcache.client.base import Client as Client
from pymemcache.client.hash import HashClient as HashClient
