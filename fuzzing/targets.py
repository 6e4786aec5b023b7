"""The table of the targets. Each takes bytes, and raises AssertionError, or anything, for a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from fuzzing.decoding import TYPES, decoder
from fuzzing.links import share_a_link
from fuzzing.primitives import compare_primitives
from fuzzing.replies import parse_replies, parse_windows
from fuzzing.requests import build_requests
from fuzzing.served import serve_requests
from fuzzing.texts import fill_templates, parse_elasticache, parse_urls

Target: TypeAlias = Callable[[bytes], None]

TARGETS: Final[dict[str, Target]] = {
    "replies": parse_replies,
    "windows": parse_windows,
    "server": serve_requests,
    "requests": build_requests,
    "primitives": compare_primitives,
    "links": share_a_link,
    "urls": parse_urls,
    "elasticache": parse_elasticache,
    "templates": fill_templates,
    **{f"loads-{name}": decoder(name) for name in TYPES},
}

CORPUS: Final = Path(__file__).parent / "corpus"


def seeds(target: str) -> list[bytes]:
    """Return the inputs for *target* that the repository keeps."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
