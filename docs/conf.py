"""Sphinx settings of the documentation. `make docs` builds it into docs/_build; it needs no network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from metacache import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "metacache"
author = "The metacache authors"
project_copyright = author
release = __version__
version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# `code` in a docstring is code. Links are made from types in signatures.
default_role = "code"

# --- pages -----------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3  # other pages link to headings: [...](settings.md#settings)

html_theme = "furo"
html_title = "metacache"
html_copy_source = False
html_show_sourcelink = False

# --- reference -------------------------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Write these names in signatures instead of what they stand for.
autodoc_type_aliases = {name: f"metacache.{name}" for name in ("Key", "Ttl")}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Every name in a signature must lead to its documentation, but for these. The build works without a network, so it
# reads no inventory of other projects.
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|builtins|collections|datetime|enum|pathlib|ssl|types|typing|typing_extensions)\..*"),
    # Type variables. Sphinx takes them for classes.
    ("py:class", r"(metacache\.[a-z_.]+\._?)?(B|Builtin|D|E|K|R|T|V)"),
    # A public name is `metacache.X`. Below a module there are only private ones, which some signatures mention.
    ("py:class", r"metacache\.[a-z_]+(\.\w+)+"),
    # What a transport passes on without looking at it.
    ("py:class", r"Reply|Verb"),
]


ALIAS = re.compile(r"TypeAliasForwardRef\('metacache\.(\w+)'\)")


def name_aliases(*event: object) -> tuple[str | None, str | None]:
    """Write `Ttl` in the signature and the result type where Sphinx writes `TypeAliasForwardRef('metacache.Ttl')`."""
    signature, returns = (None if part is None else ALIAS.sub(r"\1", str(part)) for part in event[-2:])
    return signature, returns


def setup(app: Sphinx) -> None:
    """Register the hook above. Sphinx calls this."""
    app.connect("autodoc-process-signature", name_aliases)
