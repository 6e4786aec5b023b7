"""Clusters: a pool for each of many nodes, a router, and what is known of each node's health."""
