"""Sphinx settings of the documentation. `make docs` builds it into docs/_build; it needs no network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

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
    (
        "py:.*",
        r"(asyncio|builtins|collections|concurrent|datetime|enum|pathlib|ssl|types|typing\w*)\..*",
    ),
    # `settings` imports SSLContext for type checkers only, so Sphinx shows the annotations of `Settings` unresolved. So
    # do `caching.policy` with Executor, and `routing.rendezvous` with its reports.
    ("py:class", r"OnNodeDown|SSLContext|OnBusy|Executor|timedelta|Moves|NodeScore"),
    # Type variables. Sphinx takes them for classes.
    ("py:class", r"~?(metacache\.[a-z_.]+\._?)?(B|Builtin|D|E|K|P|Q|R|S|T|V)"),
    # A public name is `metacache.X`. Below a module there are only private ones, which some signatures mention.
    ("py:class", r"metacache\.[a-z_]+(\.\w+)+"),
    # Private to the protocol: a wrapper passes them on.
    ("py:class", r"Command|Reply"),
]


ALIAS = re.compile(r"TypeAliasForwardRef\('metacache\.(\w+)'\)")
ATTRS_DEFAULT = re.compile(r"attr_dict\['(\w+)'\]\.default")


def plain_signature(*event: object) -> tuple[str | None, str | None]:
    """Write a signature as an author would: `Ttl` for the alias, and the values of defaults for their private names."""
    described, signature, returns = event[3], *(None if part is None else str(part) for part in event[-2:])
    defaults = {name: repr(field.default) for name, field in fields_of(described).items()}
    if signature is not None:
        signature = ATTRS_DEFAULT.sub(lambda match: defaults[match[1]], ALIAS.sub(r"\1", signature))
        signature = signature.replace("= DEFAULTS", "= Settings()")
    return signature, returns


def fields_of(described: object) -> Mapping[str, attrs.Attribute[object]]:
    """Return the fields of an attrs class by name; of another object none."""
    return attrs.fields_dict(described) if isinstance(described, type) and attrs.has(described) else {}


def copy_charts(app: Sphinx, error: Exception | None) -> None:
    """Copy the charts. Pages show them in <picture> elements, which Sphinx does not read."""
    if error is None:
        shutil.copytree(app.srcdir / "charts", app.outdir / "charts", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Register the hooks above. Sphinx calls this."""
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("build-finished", copy_charts)
