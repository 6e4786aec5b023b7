"""Structured-object caching: get an object from the cache, or compute it once. One text for both clients. No I/O."""
