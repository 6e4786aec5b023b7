"""One admin operation on every node of a cluster, all of them at the same time."""
