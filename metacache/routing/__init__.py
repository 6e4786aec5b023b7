"""Decide which node owns a key. Pure: no I/O and no clock, and the health of nodes does not count."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metacache.routing.rendezvous import RendezvousRouter
    from metacache.routing.reports import Moves, NodeScore
    from metacache.routing.router import Router, Splits, split
else:
    # Loaded when first used. The table has the names of the imports above; a test compares them.
    from metacache.lazy_names import names_of

    _MODULES = {
        "metacache.routing.rendezvous": "RendezvousRouter",
        "metacache.routing.reports": "Moves NodeScore",
        "metacache.routing.router": "Router Splits split",
    }
    __getattr__, __dir__ = names_of(globals(), _MODULES)

__all__ = ["Moves", "NodeScore", "RendezvousRouter", "Router", "Splits", "split"]
