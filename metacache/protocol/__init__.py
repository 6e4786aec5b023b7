"""The meta protocol, sans-IO: bytes in, bytes out. Knows no socket, clock, thread or serializer.

Read in this order: `keys` and `flags` (the parts of a request), `commands` (requests, and which codes answer them),
`replies` and `error_lines` (the lines of a reply), `expectations` (the parser), `windows` (batches), `connection` (the
queue of one connection).
"""
