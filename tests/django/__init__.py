"""The Django cache backend."""
