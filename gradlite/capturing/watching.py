"""What a step runs that nobody could find in its code before: looked at while it is recorded.

Python calls some functions by itself, such as the ``__eq__`` and ``__repr__`` of dataclasses, and
some of the library's hand out what others may change. Installed packages are not searched: they
lead to thousands of functions, of which a step runs few. A recording that meets one is not kept;
the next one knows of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import gc
import importlib.util
import logging
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from gradlite.capturing.calls import CaptureError
from gradlite.capturing.code_names import catches, is_installed, is_library, is_library_code
from gradlite.capturing.missed import Missed
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.random import Generator

OPTIMIZED = 1  # the flag of functions' code: that of modules and class bodies has none
CLOCKS = frozenset(
    (
        *(
            getattr(time, name + suffix)
            for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time")
            for suffix in ("", "_ns")
        ),
        datetime.datetime.now,
        datetime.datetime.utcnow,
        datetime.datetime.today,
        datetime.date.today,
        *(getattr(time, name) for name in ("asctime", "ctime", "gmtime", "localtime", "strftime")),
        *(getattr(time, f"clock_gettime{suffix}", time.time) for suffix in ("", "_ns")),
        os.times,
    )
)
# What others may change, or chance: also by these modules of Python, but for what makes folders.
ASKING = frozenset(
    "fnmatch genericpath glob ntpath os pathlib posixpath random secrets shutil uuid".split()
)
MAKING = ("makedirs", "mkdir", "removedirs", "renames")
ANSWERS = {
    os.urandom: "random numbers of the system", os.stat: "files", os.lstat: "files",
    os.listdir: "files", os.scandir: "files", os.access: "files", os.getcwd: "files",
    os.read: "files",
}  # fmt: skip

NOTED = CLOCKS | ANSWERS.keys() | {print}


class Asked:
    """What a function without arguments gives: read as one value."""

    __slots__ = ("_function", "_known")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function, self._known = function, function()

    def get(self, key: None, default: Any = None) -> Any:
        """The very same object as long as it is equal."""
        now = self._function()
        return self._known if now == self._known else now

    __getitem__ = get


class Findings:
    """What the recordings of a step have met, for those to come.

    Attributes:
        functions: with the class of their first argument, if they are its methods.
        whole: classes of dataclasses of which every field was read.
        variables: names of variables of the environment.
        modules: names of modules that code has put together.
        asked: functions that give what may change, with a name for people, by the object.
        options: whether every option of optimizers was read.
        carried: the places of tensors that it reads and replaces, with their containers.
        given: those among them where others put a new one before a call, as a batch of data.
        kept: places of which that is not to be.
        blind: whether nobody looks at what runs, since a profiler does.
    """

    def __init__(self) -> None:
        self.blind = False
        self.functions: list[tuple[types.FunctionType, type | None]] = []
        self.whole: dict[type, None] = {}
        self.variables: dict[str, None] = {}
        self.modules: dict[str, None] = {}
        self.asked: dict[tuple[int, str], tuple[Callable[[], Any], str]] = {}
        self.options = False
        self.codes: set[types.CodeType] = set()
        self.carried: dict[tuple[int, Any], Any] = {}
        self.given: set[tuple[int, Any]] = set()
        self.kept: set[tuple[int, Any]] = set()

    def size(self) -> int:
        """How much there is of it."""
        found = (self.codes, self.whole, self.variables, self.modules, self.asked)
        return sum(map(len, found)) + self.options


def _scheduler(schedule: Any) -> Callable[[], Any]:
    return lambda: repr(schedule.state_dict())


# Methods that hand out what others may change, and what to ask before every replay.
HANDING_OUT: dict[types.CodeType, tuple[Callable[[Any], Callable[[], Any]], str]] = {
    threading.Event.is_set.__code__: (lambda e: e.is_set, "whether an event is set"),
    logging.Logger.isEnabledFor.__code__: (lambda v: v.getEffectiveLevel, "the level of a logger"),
    logging.Logger.getEffectiveLevel.__code__: (
        lambda v: v.getEffectiveLevel,
        "the level of a logger",
    ),
    LRScheduler.state_dict.__code__: (_scheduler, "the state of a schedule"),
    Generator.initial_seed.__code__: (lambda g: g.initial_seed, "the seed of a generator"),
}
OPTIONS = (Optimizer.state_dict.__code__, Optimizer.__repr__.__code__)
FIELDS = tuple(
    getattr(dataclasses, name).__code__
    for name in ("_asdict_inner", "_astuple_inner")
    if hasattr(dataclasses, name)
)
VARIABLE = type(os.environ).__getitem__.__code__
VARIABLES = type(os.environ).__iter__.__code__
IMPORTING = importlib.import_module.__code__
OWN = ("gradlite", "numpy", "cupy")
HANDING_ON = ("gradlite.ops.random", "gradlite.cuda.devices")  # which only call one of these
LOGS = logging.Logger.handle.__code__
# What an import runs, finders that packages and test runners add among it, runs once.
IMPORTS = (importlib._bootstrap._find_and_load.__code__,)  # type: ignore[attr-defined]
SPECIAL = frozenset((*HANDING_OUT, *OPTIONS, *FIELDS, VARIABLE, VARIABLES, IMPORTING, LOGS))


class Watch:
    """Looks at every call that a step makes.

    Args:
        findings: where to put what is found.
        foreseen: the code that was found before.
        seen: the ids of the objects that were found before.
        variables: the variables of the environment that were.
        paused: whether what runs now runs in replays too.

    Attributes:
        missed: attributes that were not there.
    """

    def __init__(
        self,
        findings: Findings,
        foreseen: Iterable[types.CodeType],
        seen: set[int],
        variables: set[str],
        paused: Callable[[], bool],
    ) -> None:
        self._findings, self._seen, self._paused = findings, seen, paused
        self._variables = variables
        self._known: dict[int, types.CodeType] = {}
        self.missed, self._catches = Missed(), False
        for code in foreseen:
            self._know(code)
            self._catches = self._catches or catches(code)
        self._foreseen = set(self._known)
        self._new: list[tuple[types.CodeType, Any, Any]] = []  # with globals and locals
        self._thread, self._collecting = threading.get_ident(), False
        self.clock = self.shown = ""
        self.asked = "", ""

    def foresees(self, code: types.CodeType) -> bool:
        """Whether code is the step's, and no library's that it calls."""
        return id(code) in self._foreseen

    def _know(self, code: types.CodeType) -> None:
        self._known[id(code)] = code
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._know(constant)

    def looking(self) -> Callable[[types.FrameType, str, Any], None]:
        """What Python is to tell of every call and return; it takes as little time as it can."""
        known, noted, called = self._known, NOTED, self._called

        def look(frame: types.FrameType, event: str, argument: Any) -> None:
            if event == "call":
                if id(frame.f_code) not in known:
                    called(frame, frame.f_code)
            elif event == "c_call" and argument in noted:
                self._noted(frame, argument)

        return look

    def errors(self) -> AbstractContextManager[None]:
        """Has errors be looked at, if code that was found catches some: that takes time."""
        return self.missed.noting() if self._catches else nullcontext()

    @contextmanager
    def without_collections(self) -> Iterator[None]:
        """Leave out what runs because Python collects garbage, wherever the step is just then.

        Programs and test runners time collections by ``gc.callbacks``; finalizers run in them.
        """
        # One is called before all others, the other after them.
        gc.callbacks.insert(0, self._collects)
        gc.callbacks.append(self._collected)
        try:
            yield
        finally:
            for callback in (self._collects, self._collected):
                with suppress(ValueError):  # the step has emptied the list
                    gc.callbacks.remove(callback)

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start" and threading.get_ident() == self._thread:
            self._collecting = True

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and threading.get_ident() == self._thread:
            self._collecting = False

    def _called(self, frame: types.FrameType, code: types.CodeType) -> None:
        if self._collecting or self._paused():
            return
        if code in SPECIAL:
            self._handed_out(frame, code)
            return
        self._known[id(code)] = code
        if _is_library(frame) or not code.co_flags & OPTIMIZED or code.co_name == "__del__":
            return
        of_step = self._is_of_step(frame.f_back, is_installed(code))
        if of_step and code not in self._findings.codes:
            self._findings.codes.add(code)
            self._foreseen.add(id(code))
            self._new.append((code, frame.f_globals, dict(frame.f_locals)))

    def _is_of_step(self, frame: types.FrameType | None, through: bool = False) -> bool:
        """Whether a call comes from the step's code, perhaps through what comes with Python.

        Args:
            frame: the caller.
            through: whether it may come through gradlite as well, as hooks and layers do.
        """
        while frame is not None and id(frame.f_code) not in self._foreseen:
            name = frame.f_globals.get("__name__") or ""
            own = name.partition(".")[0] in OWN and name not in HANDING_ON and not through
            if own or not is_library(name) or frame.f_code in IMPORTS:
                return False  # a hook, what replays call anew, a library's library; or once only
            frame = frame.f_back
        return frame is not None

    def _handed_out(self, frame: types.FrameType, code: types.CodeType) -> None:
        findings, values = self._findings, frame.f_locals
        if code in OPTIONS:
            findings.options = True
        elif code in HANDING_OUT:
            make, name = HANDING_OUT[code]
            holder = values["self"]
            known = id(holder) in self._seen or isinstance(holder, Generator)
            if known and self._is_of_step(frame.f_back):
                findings.asked.setdefault((id(holder), name), (make(holder), name))
        elif code in FIELDS:
            kind = type(values["obj"])
            if dataclasses.is_dataclass(kind):
                findings.whole[kind] = None
        elif code is LOGS:
            if self._is_of_step(frame.f_back):
                self.shown = "logging"
        elif not self._is_of_step(frame.f_back):
            pass
        elif code is IMPORTING:
            name = importlib.util.resolve_name(values["name"], values["package"])
            findings.modules[name] = None
        else:
            names = set(os.environ if code is VARIABLES else [values["key"]])
            findings.variables.update(dict.fromkeys(sorted(names - self._variables)))

    def _noted(self, frame: types.FrameType, function: Any) -> None:
        if self._collecting or self._paused():
            return
        if function in ANSWERS:
            if self._asks(frame):
                self.asked = f"{function.__module__}.{function.__name__}()", ANSWERS[function]
        elif not self.foresees(frame.f_code):
            pass
        elif function is print:
            self.shown = "print()"
        else:
            owner = getattr(function, "__self__", None)
            self.clock = f"{getattr(owner, '__name__', 'time')}.{function.__name__}()"

    def _asks(self, frame: types.FrameType | None) -> bool:
        """Whether the step's code asks, itself or by what hands out what the system answers.

        Handlers of loggers and the like ask for themselves.
        """
        while frame is not None and not self.foresees(frame.f_code):
            name = (frame.f_globals.get("__name__") or "").partition(".")[0]
            if name not in ASKING or frame.f_code.co_name in MAKING:
                return False
            frame = frame.f_back
        return frame is not None

    def finish(self, read: str) -> None:
        """Find the functions of the code that was met.

        Args:
            read: how the step has read a number of a tensor, or "".

        Raises:
            CaptureError: the step has asked for the time, or shown somebody what it has read.
        """
        if self.clock:
            raise CaptureError(
                f"the step asks for the time ({self.clock}), which a replay would not do: ask "
                "outside of the step, and give it what depends on it"
            )
        if self.asked[0]:
            raise CaptureError(
                f"the step asks for {self.asked[1]} ({self.asked[0]}), which a replay would not "
                "do: ask outside of the step, and give it what depends on it"
            )
        if self.shown and read:
            raise CaptureError(
                f"the step reads a tensor's value ({read}) and shows something ({self.shown}), "
                "which a replay would not do: return the tensor from the step and show it there"
            )
        found: list[tuple[types.FunctionType, type | None]] = []
        sought = []
        for code, variables, values in self._new:
            method = _method(code, values)
            if method is None:
                sought.append((code, variables, values))
            else:
                found.append(method)
        holders = gc.get_referrers(*(code for code, _, _ in sought)) if sought else []
        functions = [f for f in holders if isinstance(f, types.FunctionType)]
        for code, variables, values in sought:
            own = [f for f in functions if f.__code__ is code and f.__globals__ is variables]
            own = [f for f in own if _closes_over(f, values)] or [_made(code, variables, values)]
            found += [(function, None) for function in own]
        self._findings.functions += found


def _is_library(frame: types.FrameType) -> bool:
    """Whether code is of a library; that which dataclasses make has no file."""
    return is_library_code(frame.f_code) or is_library(frame.f_globals.get("__name__"))


def _closes_over(function: types.FunctionType, values: dict[str, Any]) -> bool:
    """Whether a function is the one that was called with some variables around it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            if name in values and cell.cell_contents is not values[name]:
                return False
        except ValueError:  # it is not filled
            continue
    return True


def _method(code: types.CodeType, values: dict[str, Any]) -> tuple[types.FunctionType, type] | None:
    """The method with some code, and the class of its first argument; None where it is none."""
    if not code.co_argcount or code.co_varnames[0] not in values:
        return None
    kind = type(values[code.co_varnames[0]])
    for base in kind.__mro__:
        for value in base.__dict__.values():
            while isinstance(value, types.FunctionType):
                if value.__code__ is code:
                    return value, kind
                value = getattr(value, "__wrapped__", None)
    return None


def _made(
    code: types.CodeType, variables: dict[str, Any], values: dict[str, Any]
) -> types.FunctionType:
    """A function like the one that was called."""
    closure = tuple(
        types.CellType(values[name]) if name in values else types.CellType()
        for name in code.co_freevars
    )
    return types.FunctionType(code, variables, closure=closure or None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let this thread's calls be looked at, unless a profiler does already."""
    if sys.getprofile() is not None:
        yield
        return
    with watch.without_collections(), watch.errors():
        sys.setprofile(watch.looking())
        try:
            yield
        finally:
            sys.setprofile(None)
