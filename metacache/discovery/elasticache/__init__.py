"""Nodes that a discovery endpoint tells: ``config get cluster`` of ElastiCache and Memorystore."""
