"""An exception of a signal handler comes out of the call that it interrupts."""

import signal

from metacache import connect
from metacache.testing import Memcached


class Stop(Exception):
    """The handler raises it."""


def on_alarm(*_: object) -> None:
    """Interrupt the call."""
    raise Stop


signal.signal(signal.SIGALRM, on_alarm)
stopped = False
with Memcached() as server, connect(server.url, str) as texts:
    texts.set("greeting", "hello")
    server.freeze()  # from now on it does not answer
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        texts.get("greeting")
    except Stop:
        stopped = True
    server.thaw()
    assert stopped
    assert texts.get("greeting") == "hello"  # on a new connection
