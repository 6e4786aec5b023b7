"""Decide which node owns a key. Pure: no I/O and no clock, and the health of nodes does not count."""

from metacache.routing.rendezvous import RendezvousRouter
from metacache.routing.reports import Moves, NodeScore
from metacache.routing.router import Router, Splits, split

__all__ = ["Moves", "NodeScore", "RendezvousRouter", "Router", "Splits", "split"]
