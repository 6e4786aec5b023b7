"""Clusters: a pool for each of many nodes, a router, and the health of each node."""
