"""From a node's address to a connected socket. Knows names, addresses, TLS and deadlines; knows no memcached."""
