"""`frozen`, `field` and `evolve`: attrs for type checkers, and the quick stand-in of `making` at run time.

The modules that a first `get` loads use these names, so that it does not load attrs. That would cost a third of its
start: attrs loads a part of the standard library, and it compiles six methods of each class. Other modules use attrs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import Factory, evolve, field, frozen
    from attrs.validators import optional
else:
    from metacache.values.making import Factory, evolve, field, frozen, optional

__all__ = ["Factory", "evolve", "field", "frozen", "optional"]
