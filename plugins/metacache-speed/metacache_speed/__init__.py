"""Compiled primitives for metacache, which uses them if this package is installed. See metacache/acceleration.py."""

from metacache_speed._speed import (
    API,
    Builder,
    Exchange,
    Owners,
    PendingReply,
    Waiter,
    frame_requests,
    give_answers,
    queue_request,
    read_answers,
    read_window,
    wake_tasks,
)

__all__ = [
    "API",
    "Builder",
    "Exchange",
    "Owners",
    "PendingReply",
    "Waiter",
    "frame_requests",
    "give_answers",
    "queue_request",
    "read_answers",
    "read_window",
    "wake_tasks",
]
