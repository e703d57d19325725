"""Which attributes of objects count: those that the step's code has the names of."""

from __future__ import annotations

import types
from collections.abc import Iterable

from gradlite.capturing import code_names
from gradlite.capturing.code_names import is_library_class
from gradlite.nn import Module


class Named:
    """The names in the step's code: of any object's attributes, or of one class's alone.

    Attributes:
        everywhere: names that may be read of any object.
        own: those that methods of a class read of their owner.
        constructing: those in its constructors, whose owner has what its class has, and no more.
        handed_on: classes with methods that hand their owner to other code.
        tried: names of attributes that need not be there, as a default is given.
        caught: and those where an error is caught.
        any: whether attributes are looked up by names that are values.
        spared: classes with methods that do so, but for their owners; None stands for other code.
    """

    def __init__(self) -> None:
        self.everywhere: set[str] = set()
        self.own: dict[type, set[str]] = {}
        self.constructing: dict[type, set[str]] = {}
        self.handed_on: set[type] = set()
        self.tried: set[str] = set()
        self.caught: set[str] = set()
        self.any = False
        self.spared: set[type | None] = set()

    def note(self, code: types.CodeType, owner: type | None, makes: bool) -> None:
        """Take up the names in a function's code.

        Args:
            code: the code.
            owner: the class of its first argument.
            makes: whether it makes an object of that class, which it finds without attributes.
        """
        own = None if owner is None else code_names.names_of_owner(code)
        if owner is not None and makes:
            self.constructing.setdefault(owner, set()).update(code_names.names(code))
            self.everywhere.update(code_names.names_of_others(code))
        elif owner is None or own is None:
            self.everywhere.update(code_names.names(code))
            if owner is not None:
                self.handed_on.add(owner)
        else:
            self.add(owner, own)
            self.everywhere.update(code_names.names_of_others(code))
        self.tried.update(code_names.names_tried(code))
        if "AttributeError" in code_names.names(code):
            self.caught.update(code_names.names(code))
        if not makes and code_names.reads_any(code):
            self.any = True
            spared = owner is not None and code.co_argcount and code_names.spares_owner(code)
            self.spared.add(owner if spared else None)

    def add(self, kind: type, names: Iterable[str]) -> None:
        """Take up attributes of the objects of one class."""
        self.own.setdefault(kind, set()).update(names)

    def of_class(self, kind: type, exposed: bool) -> set[str]:
        """The names that count in a class; exposed: its objects not only their methods have."""
        meta: type = type(kind)
        names = set(self.everywhere if exposed or self.is_handed_on(kind) else ())
        for other, own in (*self.own.items(), *self.constructing.items()):
            # Without `issubclass`, which some classes answer as they like, or refuse.
            if kind in other.__mro__ or other in kind.__mro__:
                names |= own
            elif other in meta.__mro__:  # of a class of classes
                names |= own
        return names

    def of_object(self, kind: type, exposed: bool) -> set[str]:
        """The names that count in an object of a class."""
        names = self.everywhere if exposed or self.is_handed_on(kind) else set[str]()
        return names.union(*(self.own.get(k, ()) for k in kind.__mro__))

    def is_handed_on(self, kind: type) -> bool:
        """Whether other code has the objects of a class, from a method of that."""
        return any(k in self.handed_on for k in kind.__mro__)

    def any_of(self, kind: type, exposed: bool) -> bool:
        """Whether attributes of the objects of a class may be looked up by values."""
        if exposed or not self.is_handed_on(kind):
            return self.any and exposed
        return any(spared is None or spared not in kind.__mro__ for spared in self.spared)

    def reads(self, module: Module, key: str) -> bool:
        """Whether code has the name of an attribute of a module of the program's own class."""
        return key != "training" and (key in self.everywhere or self._is_own(type(module), key))

    def unread(self, module: Module, key: str) -> bool:
        """Whether no code reads an attribute of a module, as of a count of steps beside it."""
        kind = type(module)
        if self.any or key in self.everywhere or key.startswith("_") or key == "training":
            return False
        if hasattr(kind, key) or any(
            is_library_class(k) and k not in Module.__mro__ for k in kind.__mro__
        ):  # which reads attributes of its own
            return False
        return not is_library_class(kind) and not self._is_own(kind, key)

    def _is_own(self, kind: type, key: str) -> bool:
        return any(key in names for other, names in self.own.items() if other in kind.__mro__)
