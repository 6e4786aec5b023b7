"""Connections for threads: dial, send requests and read replies, and lend connections to one thread at a time."""
