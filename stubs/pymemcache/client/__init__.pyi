from pymemcache.client.base import Client as Client
from pymemcache.client.hash import HashClient as HashClient
