"""One connection for threads: dial, exchange, and the checkout of connections."""
