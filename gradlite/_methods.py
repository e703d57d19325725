"""What editors and type checkers see of the methods that the ops add to Tensor."""

from __future__ import annotations


class TensorMethods:
    """Base of Tensor; its body is generated from the table of ops."""

    __slots__ = ()
