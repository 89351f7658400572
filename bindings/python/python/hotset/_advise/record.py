"""Records the calls of a program's own functions.

`CallSampler` counts all calls natively. Some are observed: the first ones of each function, all of
functions that are slow, and of fast ones as many as fit into a share of the elapsed time.

Rules: no code of the program is called, nothing of it is kept alive (but for results of builtin
types only, which cannot notice), and an exception is only passed on if it is the program's, raised
by the handler of a signal.
"""

import os
import sys
import sysconfig
import threading
import weakref
from array import array
from collections import deque
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_OPTIMIZED, CO_VARARGS, CO_VARKEYWORDS
from statistics import median
from threading import get_ident
from time import perf_counter_ns, process_time_ns
from types import CodeType, FrameType
from typing import Any

from hotset._advise.observe import Description, class_of, forget_tokens, living_tokens, name_of, token_of
from hotset._forks import at_fork
from hotset._hotset import CallSampler

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_CALIBRATION = "<calibration of hotset advise>"
_get_frame = sys._getframe  # pyright: ignore[reportPrivateUsage]

# The first calls of each function are observed in any case.
_FIRST = 100
_BURST = 500
_SKIP = 256
# The time of observation, as a share of the function's own time, and the share of the program's
# elapsed time that all observation may have taken: for functions by the nanoseconds of a call.
_SLOW = 10_000
_SHARES_OF_SLOW, _SHARES_OF_FAST = (0.25, 0.6), (0.05, 0.08)
# A recursive function with fewer nanoseconds per call is not observed from its outermost call on.
_FAST = 2000
_MAX_CALLS = 300_000
_MAX_ALL_CALLS = 1_000_000
_MAX_KEYS = 100_000
_MAX_KEPT = 32
_MAX_KEPT_SIZE = 100_000
# The nanoseconds that a call of an empty function takes.
_EMPTY_CALL = 40
_MISSING = object()


class Stream:
    """The observed calls of a function on one thread, in the order in which they began."""

    __slots__ = ("depth", "depths", "keys", "starts", "times")

    def __init__(self) -> None:
        self.keys = array("q")
        self.starts = array("q")
        # -1 for calls that have not returned.
        self.times = array("q")
        self.depths = array("H")
        self.depth = 0


class Function:
    """What was seen of one function."""

    def __init__(self, index: int, code: CodeType) -> None:
        self.index = index
        self.code = code
        self.name: str = code.co_qualname
        count = code.co_argcount + code.co_kwonlyargcount
        self.parameters = code.co_varnames[:count]
        more = list(code.co_varnames[count : count + 2])
        self.varargs = more.pop(0) if code.co_flags & CO_VARARGS else None
        self.varkw = more.pop(0) if code.co_flags & CO_VARKEYWORDS else None
        self.is_generator = bool(code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))
        self.is_coroutine = bool(code.co_flags & CO_COROUTINE)
        parent = self.name.rpartition(".")[0]
        self.is_nested = "<locals>" in self.name
        in_class = bool(parent) and not parent.endswith("<locals>")
        self.is_method = in_class and bool(self.parameters) and self.parameters[0] in ("self", "cls", "mcs")
        self.streams: dict[int, Stream] = {}
        self.calls = self.planned = self.observed = self.completed = self.raised = 0
        self.returns = False
        # In nanoseconds.
        self.overhead = self.time = self.own = self.max_time = 0
        # By key: the digest of the last result, when it was seen, how often the key was.
        self.results: dict[int, list[int]] = {}
        self.repeats = self.same = self.different = self.unknown = 0
        self.first_change: int | None = None
        # The tokens of the instances of a method, and how many of these live at the end.
        self.instances: set[int] = set()
        self.alive = 0
        self.unhashable = self.own_hash = ""
        self.unhashable_calls = 0
        self.by_address = self.recursive = False
        self.none_results = self.sizes = self.sized = self.max_size = 0
        self.partial_results = False
        self.result_types: set[str] = set()
        self.mutable_results = self.checked_results = self.mutated_results = 0
        self.changed_arguments = 0
        # Results that may be changed by callers: a digest, and the object or a weak reference.
        self.kept: deque[tuple[int, Any, bool]] = deque()


    def mean(self) -> float:
        """Returns the mean nanoseconds of a call; of a recursive one, without its callees."""
        return (self.own if self.recursive else self.time) / max(1, self.completed)


class Call:
    """A call that is observed, while it is in progress."""

    __slots__ = ("child", "child_skipped", "function", "held", "key", "position", "skipped", "start", "stream", "thread")

    function: Function
    stream: Stream
    thread: "ThreadState"
    position: int
    key: int
    start: int
    skipped: int
    child: int
    child_skipped: int
    held: list[tuple[int, Any]]


class ThreadState:
    """The observed calls in progress of a thread, and the time that was spent here."""

    __slots__ = ("overhead", "stack")

    def __init__(self) -> None:
        self.overhead = 0
        self.stack: list[Call] = []


_libraries = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if path
)
_LIBRARY_FOLDERS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def _is_included(path: str, names: tuple[str, ...]) -> bool:
    """Returns whether a file is of one of the named packages, modules or folders."""
    for name in names:
        parts = name.replace(".", os.sep)
        if f"{os.sep}{parts}{os.sep}" in path or path.endswith(f"{os.sep}{parts}.py"):
            return True
        if os.sep in name and path.startswith(os.path.join(os.path.realpath(name), "")):
            return True
    return False


_active: "Recorder | None" = None


class Recorder:
    """Records calls between `start` and `stop`. One at a time is active in a process.

    Args:
        include: Packages and folders whose functions are recorded though they are installed.
    """

    def __init__(self, include: tuple[str, ...] = ()) -> None:
        self.include = include
        self.functions: list[Function] = []
        self.errors = 0
        self.last_error = ""
        self.elapsed = 0
        self.overhead = 0
        self.hit_cost = 0.0
        self._bias = 0
        self._entries = 0
        self._own_files: dict[str, bool] = {}
        self._threads: dict[int, ThreadState] = {}
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._tool: int | None = None
        self._previous: Any = None
        self._started = self._started_processor = 0
        disable = sys.monitoring.DISABLE if sys.version_info >= (3, 12) else None
        self._sampler = CallSampler(self._decide, self._plan, self._begin, self._end, disable)

    def start(self) -> None:
        """Starts to record.

        Raises:
            RuntimeError: Another recording is active in this process, or other tools use all places
                of `sys.monitoring`.
        """
        global _active
        if _active is not None:
            raise RuntimeError("another recording of calls is active in this process: end it first")
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            free = [tool for tool in (4, 3, 5, 2, 1, 0) if monitoring.get_tool(tool) is None]
            if not free:
                raise RuntimeError("no place is free in sys.monitoring: other tools use all six")
            callbacks = self._sampler.start()
            self._tool = tool = free[0]
            monitoring.use_tool_id(tool, "hotset advise")
            events = monitoring.events
            for event, callback in zip((events.PY_START, events.PY_RETURN, events.PY_UNWIND), callbacks, strict=True):
                monitoring.register_callback(tool, event, callback)
            monitoring.set_events(tool, events.PY_START | events.PY_UNWIND)
        else:
            if sys.getprofile() is not None:
                raise RuntimeError("a profile function is set, and Python 3.11 has room for one only: end that profile first")
            self._sampler.start()
            self._sampler.attach()
            self._previous = threading.getprofile()
            threading.setprofile(self._attach_thread)
        _active = self
        self._started = perf_counter_ns()
        self._started_processor = process_time_ns()
        self._calibrate()

    def stop(self) -> None:
        """Stops recording. What was seen can be judged then."""
        global _active
        if _active is not self:
            return
        _active = None
        self.elapsed = perf_counter_ns() - self._started
        self._turn_off()
        for function, calls in zip(self._known(), self._sampler.calls(), strict=False):
            function.calls = calls
            while function.kept:
                self._check_kept(function)
        alive = living_tokens()
        for function in self.functions:
            function.alive = len(function.instances & alive)
        forget_tokens()

    def _turn_off(self) -> None:
        self._sampler.stop()
        if sys.version_info >= (3, 12) and self._tool is not None:
            sys.monitoring.set_events(self._tool, 0)
            for function in self.functions:
                if function.returns:
                    sys.monitoring.set_local_events(self._tool, function.code, 0)
            events = sys.monitoring.events
            for event in (events.PY_START, events.PY_RETURN, events.PY_UNWIND):
                sys.monitoring.register_callback(self._tool, event, None)
            sys.monitoring.free_tool_id(self._tool)
            self._tool = None
        elif sys.version_info < (3, 12):
            # The program may have set its own in between.
            if threading.getprofile() == self._attach_thread:
                threading.setprofile(self._previous)  # type: ignore[arg-type]
            if sys.getprofile() is None:
                self._sampler.detach()

    def _after_fork(self) -> None:
        """Stops recording in a child process, whose calls are not part of the table."""
        self._turn_off()

    def _attach_thread(self, _frame: FrameType, _event: str, _argument: Any) -> None:
        self._sampler.attach()

    def _calibrate(self) -> None:
        """Measures what an observed call seems to take in addition to its own time."""
        names: dict[str, Any] = {}
        exec(compile("def calibrate(x):\n    return x\n", _CALIBRATION, "exec"), names)
        calibrate = names["calibrate"]
        for number in range(_FIRST):
            calibrate(number)
        for function in self._known():
            if function.code.co_filename == _CALIBRATION:
                times = [time for stream in function.streams.values() for time in stream.times]
                self._bias = max(0, int(median(times)) - _EMPTY_CALL) if times else 0

    def _known(self) -> list[Function]:
        """Returns all functions, those included that were called for the first time just now."""
        with self._lock:
            codes = self._sampler.codes()
            for index in range(len(self.functions), len(codes)):
                self.functions.append(Function(index, codes[index]))
        return self.functions

    def observed_functions(self) -> list[Function]:
        """Returns the program's functions that were called."""
        return [function for function in self._known() if function.code.co_filename != _CALIBRATION and function.calls]

    def _is_own(self, filename: str) -> bool:
        known = self._own_files.get(filename)
        if known is None:
            known = self._own_files[filename] = self._decide_file(filename)
        return known

    def _decide_file(self, filename: str) -> bool:
        if filename.startswith("<"):
            return filename == _CALIBRATION
        path = os.path.realpath(filename)
        if path.startswith(_PACKAGE):
            return False
        if self.include and _is_included(path, self.include):
            return True
        return not path.startswith(_libraries) and not any(folder in path for folder in _LIBRARY_FOLDERS)

    # What the native part calls. `sys._getframe(1)` is there the frame of the observed function.

    def _decide(self, code: CodeType) -> tuple[int, bytes, bool]:
        try:
            flags = code.co_flags
            name = code.co_name
            if not flags & CO_OPTIMIZED or (name[:1] == "<" and name != "<lambda>") or not self._is_own(code.co_filename):
                # The code of modules and classes is freed when it has run, and its address reused.
                return -1, b"", sys.version_info < (3, 12) and bool(flags & CO_OPTIMIZED) and code.co_filename[:1] != "<"
            kind = 1 if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR) else 2 if flags & CO_COROUTINE else 0
            return kind, code.co_code if kind and sys.version_info < (3, 12) else b"", True
        except Exception as error:
            self._note(error)
            return -1, b"", False

    def _plan(self, index: int) -> int:
        try:
            return self._planned(index)
        except Exception as error:
            self._note(error)
            return -_SKIP

    def _planned(self, index: int) -> int:
        functions = self.functions
        if index >= len(functions):
            functions = self._known()
        function = functions[index]
        if "greenlet" in sys.modules:
            self._sampler.find_by_frame()
        count = 0
        if function.observed < _FIRST:
            count = _FIRST
        elif function.observed < _MAX_CALLS and self._entries < _MAX_ALL_CALLS and function.code.co_filename != _CALIBRATION:
            mean = function.mean()
            if mean >= _SLOW:
                elapsed, (of_function, of_program) = perf_counter_ns() - self._started, _SHARES_OF_SLOW
            else:
                # A fast function pays with processor time, of which a busy machine gives less.
                elapsed, (of_function, of_program) = process_time_ns() - self._started_processor, _SHARES_OF_FAST
            elapsed -= self.overhead
            if self.overhead < of_program * elapsed and function.overhead < of_function * mean * function.planned:
                count = _BURST
        function.planned += count or _SKIP
        if count and not function.returns:
            self._report_returns(function, True)
        elif not count and function.returns and sys.version_info >= (3, 12):
            if self._sampler.in_progress(index) <= 0:
                self._report_returns(function, False)
            elif function.recursive and function.own < _FAST * function.completed:
                # Its outer calls would have the interpreter report each return of the inner ones.
                self._report_returns(function, False)
                self._abandon(function)
        return count or -_SKIP

    def _report_returns(self, function: Function, on: bool) -> None:
        if sys.version_info >= (3, 12) and self._tool is not None:
            sys.monitoring.set_local_events(self._tool, function.code, sys.monitoring.events.PY_RETURN if on else 0)
        function.returns = on
        self._sampler.set_returns(function.index, on)

    def _abandon(self, function: Function) -> None:
        """Ends the observation of the calls of a function that are in progress."""
        for address, call in list(self._calls.items()):
            if call.function is function:
                del self._calls[address]
                if call in call.thread.stack:
                    call.thread.stack.remove(call)
        for stream in function.streams.values():
            stream.depth = 0

    def _begin(self, index: int) -> bool:
        entered = perf_counter_ns()
        frame = _get_frame(1)
        try:
            return self._observe(self.functions[index], frame, entered)
        except Exception as error:
            self._note(error)
            return False
        finally:
            del frame

    def _observe(self, function: Function, frame: FrameType, entered: int) -> bool:
        ident = get_ident()
        thread = self._threads.get(ident)
        if thread is None:
            thread = self._threads[ident] = ThreadState()
        stream = function.streams.get(ident)
        if stream is None:
            stream = function.streams[ident] = Stream()
        call = Call()
        call.function, call.stream, call.thread = function, stream, thread
        call.held = []
        call.key = self._key(function, frame, call.held)
        call.child = call.child_skipped = 0
        call.skipped = self._sampler.skipped()
        call.position = len(stream.keys)
        stream.keys.append(call.key)
        stream.starts.append(entered)
        stream.times.append(-1)
        stream.depths.append(min(stream.depth, 65_535))
        if not function.is_coroutine:
            if stream.depth:
                function.recursive = True
            stream.depth += 1
            thread.stack.append(call)
        function.observed += 1
        self._entries += 1
        self._calls[id(frame)] = call
        now = perf_counter_ns()
        spent = now - entered
        thread.overhead += spent
        function.overhead += spent
        self.overhead += spent
        call.start = now - thread.overhead
        return True

    def _key(self, function: Function, frame: FrameType, held: list[tuple[int, Any]]) -> int:
        """Returns a digest of the arguments of a call that begins."""
        variables = frame.f_locals
        values = [variables.get(name, _MISSING) for name in function.parameters]
        more = variables.get(function.varargs) if function.varargs else None
        keywords = variables.get(function.varkw) if function.varkw else None
        if type(variables) is dict:
            # (Python 3.12 and older.) The frame keeps this copy of its variables, and with it what
            # the function deletes.
            variables.clear()
        digests: list[int] = []
        unhashable = False
        if function.is_method:
            token = token_of(values[0])
            if token is None:
                digests.append(Description()(values[0]))
                function.by_address = True
            else:
                digests.append(token)
                if len(function.instances) < _MAX_KEYS:
                    function.instances.add(token)
            del values[0]
        if more:
            values.extend(more)
        if keywords:
            digests.append(hash(tuple(keywords)))
            values.extend(keywords.values())
        for value in values:
            description = Description()
            digest = description(value)
            digests.append(digest)
            if description.unhashable:
                unhashable = True
                function.unhashable = function.unhashable or description.unhashable
            function.own_hash = function.own_hash or description.own_hash
            function.by_address |= description.by_address
            if description.changeable and description.is_plain and not description.is_partial:
                held.append((digest, value))
        function.unhashable_calls += unhashable
        return hash(tuple(digests))

    def _end(self, index: int, raised: bool, value: Any) -> bool:
        entered = perf_counter_ns()
        frame = _get_frame(1)
        address = id(frame)
        del frame
        try:
            call = self._calls.get(address)
            if call is None or call.function.index != index:
                self._sampler.find_by_frame()
                return False
            del self._calls[address]
            self._complete(call, raised, value, entered)
        except Exception as error:
            self._note(error)
        return True

    def _complete(self, call: Call, raised: bool, value: Any, entered: int) -> None:
        function, stream, thread = call.function, call.stream, call.thread
        elapsed = max(0, entered - thread.overhead - call.start - self._bias)
        stream.times[call.position] = elapsed
        if not function.is_coroutine:
            stream.depth -= 1
            skipped = self._sampler.skipped() - call.skipped
            stack = thread.stack
            if stack and stack[-1] is call:
                stack.pop()
            elif call in stack:
                stack.remove(call)
            if stack:
                stack[-1].child += elapsed
                stack[-1].child_skipped += skipped
            function.own += max(0, elapsed - call.child - max(0, skipped - call.child_skipped))
            if not stream.depth:
                function.time += elapsed
        else:
            function.time += elapsed
        function.max_time = max(function.max_time, elapsed)
        function.completed += 1
        if raised:
            function.raised += 1
        else:
            self._result(function, call, value, entered)
        for digest, argument in call.held:
            if Description()(argument) != digest:
                function.changed_arguments += 1
                break
        if function.completed % 64 == 0:
            self._sampler.set_own(function.index, function.own // function.completed)
        # What the interpreter spends around the two callbacks.
        spent = perf_counter_ns() - entered
        thread.overhead += spent + 2 * self._bias
        function.overhead += spent
        self.overhead += spent

    def _result(self, function: Function, call: Call, value: Any, now: int) -> None:
        before = function.results.get(call.key)
        if before is not None:
            before[2] += 1
            # Of the later results with equal arguments some are enough.
            if before[2] > 3 and before[2] % 4:
                return
        description = Description(by_value=True)
        digest = description(value)
        function.sized += 1
        function.sizes += description.size
        function.max_size = max(function.max_size, description.size)
        function.none_results += value is None
        function.partial_results |= description.is_partial
        if len(function.result_types) < 5:
            function.result_types.add(name_of(class_of(value)))
        if before is not None:
            function.repeats += 1
            if before[0] == digest:
                function.same += 1
            elif description.is_opaque:
                function.unknown += 1
            else:
                function.different += 1
                age = now - before[1]
                function.first_change = age if function.first_change is None else min(function.first_change, age)
                before[:2] = digest, now
        elif len(function.results) < _MAX_KEYS:
            function.results[call.key] = [digest, now, 1]
        if description.changeable:
            function.mutable_results += 1
            self._keep(function, description, digest, value)

    def _keep(self, function: Function, description: Description, digest: int, value: Any) -> None:
        """Keeps a result, or a weak reference to it, to find out later whether it was changed."""
        if description.is_partial or description.is_opaque or description.size > _MAX_KEPT_SIZE:
            return
        if not description.is_plain:
            token = token_of(value)
            if token is None:
                return
            value = weakref.ref(value)
        function.kept.append((digest, value, description.is_plain))
        if len(function.kept) > _MAX_KEPT:
            self._check_kept(function)

    def _check_kept(self, function: Function) -> None:
        digest, value, is_plain = function.kept.popleft()
        if not is_plain:
            value = value()
            if value is None:
                return
        try:
            now = Description(by_value=True)(value)
        except RuntimeError:  # It is changed at this very time, by another thread.
            now = digest + 1
        function.checked_results += 1
        function.mutated_results += now != digest

    def _note(self, error: Exception) -> None:
        """Counts an error of the recorder itself; raises it if it is the program's.

        The handler of a signal may run, and raise, anywhere: here, too.
        """
        last: str = ""
        traceback = error.__traceback__
        while traceback is not None:
            last = traceback.tb_frame.f_code.co_filename
            traceback = traceback.tb_next
        if not last.startswith(_PACKAGE) and self._is_own(last):
            raise error
        self.errors += 1
        self.last_error = f"{type(error).__name__}: {error}"


def _after_fork_in_child() -> None:
    global _active
    recorder, _active = _active, None
    if recorder is not None:
        recorder._after_fork()  # pyright: ignore[reportPrivateUsage]


at_fork(_after_fork_in_child)
