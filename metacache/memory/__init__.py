"""The embedded server behind ``memory://``: a memcached in this process, for tests, laptops and CI."""
