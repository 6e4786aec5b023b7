"""One socket with its protocol connection. Knows how bytes are moved within a deadline; knows no operation."""
