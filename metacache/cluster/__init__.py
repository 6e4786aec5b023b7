"""Clusters: one pool for each node, a router, and the health of the nodes."""
