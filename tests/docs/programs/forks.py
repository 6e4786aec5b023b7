"""One client, made before the fork, serves the parent and the child."""

import os
import sys

from metacache import connect

url = sys.argv[1] if len(sys.argv) > 1 else "memcached://localhost:11211"
workers = connect(url, int, prefix="workers:")
workers.set("started", 1)

child = os.fork()
if child == 0:
    workers.increment("started")  # on a connection that the child dials
    os._exit(0)

os.waitpid(child, 0)
assert workers.get("started") == 2  # on the connection that the parent had before
