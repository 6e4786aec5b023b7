"""`override` and `TypeForm`: those of typing_extensions for type checkers, and at run time names without effect.

So the modules that use them do not load typing_extensions. `typing` has `override` from Python 3.12 on.
"""

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import TypeForm, override
else:
    T = TypeVar("T")

    class TypeForm(Generic[T]):
        """The type of an argument that is a type expression, such as ``list[User] | None``."""

    def override(method):
        """Return *method*."""
        return method


__all__ = ["TypeForm", "override"]
