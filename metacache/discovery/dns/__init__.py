"""Nodes behind one name: the addresses of a headless service, and the names that they keep."""
