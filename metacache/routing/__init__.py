"""Which node owns a key. Pure: knows nodes and hashes; knows no socket, clock, health or protocol."""

from metacache.routing.rendezvous import RendezvousRouter
from metacache.routing.reports import Moves, NodeScore
from metacache.routing.router import Router, Splits, split

__all__ = ["Moves", "NodeScore", "RendezvousRouter", "Router", "Splits", "split"]
