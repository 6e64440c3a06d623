"""Types of inputs and outputs that fit others than themselves."""

from __future__ import annotations


class AnyType(str):
    """A type that is not unlike any other, which is what ComfyUI asks of two that are connected."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


#: Fits everything, in the front end too.
ANY = AnyType("*")
#: A text that lists of choices take as well.
CHOICE = AnyType("STRING,COMBO")
