"""An exception of a signal handler comes out of the call that it interrupts."""

import signal

from metacache import connect
from metacache.testing import Memcached


class Stop(Exception):
    """Raised by the handler."""


def on_alarm(number: int, frame: object) -> None:
    """Interrupt whatever runs."""
    raise Stop


signal.signal(signal.SIGALRM, on_alarm)
with Memcached() as server, connect(server.url, str) as texts:
    texts.set("greeting", "hello")
    server.freeze()  # it answers nothing more
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        texts.get("greeting")
    except Stop:
        print("stopped")
    server.thaw()
    print(texts.get("greeting"))  # on a new connection
