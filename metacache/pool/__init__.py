"""Pools: several connections to one node as one transport. Knows connections and limits; knows no cluster."""
