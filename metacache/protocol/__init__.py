"""The meta protocol, sans-IO: bytes in, bytes out. Knows no socket, clock, thread or serializer."""
