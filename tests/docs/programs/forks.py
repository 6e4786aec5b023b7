"""A client that is made before a fork serves the parent and the child."""

import os
import sys

from metacache import connect

url = sys.argv[1] if len(sys.argv) > 1 else "memcached://localhost:11211"
workers = connect(url, int, prefix="workers:")
workers.set("started", 1)

child = os.fork()
if child == 0:
    workers.increment("started")  # on a connection of the child
    os._exit(0)

os.waitpid(child, 0)
print(workers.get("started"))
