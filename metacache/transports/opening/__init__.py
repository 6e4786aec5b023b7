"""Opening: a connection dialled and authenticated, ready for its first request."""
