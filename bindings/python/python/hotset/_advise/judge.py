"""Decides which functions are worth caching, and writes the line to add."""

import builtins
import dis
import os
import time
from dataclasses import dataclass, field
from statistics import median
from types import CodeType
from typing import Any, Literal

import hotset
from hotset._advise.curve import Size, curve_of, distinct_of
from hotset._advise.record import Function, Recorder

Verdict = Literal["cache", "maybe", "no"]

# Time that must be saved for a function to be listed: a share of the elapsed time.
_WORTH = 0.01
# The share of what an unlimited cache saves that the proposed size must save.
_ENOUGH = 0.95
# What the measured time of a single call may be wrong by, in seconds.
_UNCERTAIN = 500e-9
_CHEAP_MEAN = 5e-6
_SIDE_EFFECTS = frozenset({"print", "input", "open", "exec", "exit", "setattr", "delattr", "breakpoint"})
_IMPURE = {
    "time": "the time",
    "time_ns": "the time",
    "perf_counter": "the time",
    "monotonic": "the time",
    "utcnow": "the time",
    "today": "the date",
    "random": "random numbers",
    "randint": "random numbers",
    "randrange": "random numbers",
    "shuffle": "random numbers",
    "urandom": "random numbers",
    "uuid4": "random numbers",
    "uuid1": "random numbers",
    "getenv": "the environment",
    "environ": "the environment",
}


@dataclass
class Finding:
    """What was found out about one function. Times are in seconds, sizes in bytes.

    Attributes:
        function: Its qualified name.
        file: The file in which it is defined.
        line: The line of its `def`.
        verdict: "cache" if a cache would save time; "maybe" if there are reasons against it that
            only a person can judge; "no" otherwise.
        decorator: The line to write above the function; "" with the verdict "no".
        calls: All calls.
        observed: Those whose arguments, time and result were looked at. The other figures are of
            these, and times are extrapolated from them.
        distinct: Distinct arguments among the observed calls.
        time: The time of all calls, callees included; for a coroutine, waiting included.
        own: The time of all calls without recorded callees; None for a coroutine.
        mean: The mean time of a call.
        saved: The time that a cache of `maxsize` results would have saved.
        maxsize: The proposed capacity.
        hit_ratio: The hit ratio of such a cache.
        curve: The hit ratio and saved time at several sizes.
        repeats: Observed calls whose arguments had been observed before.
        same: Those that returned an equal result.
        different: Those that returned another one.
        raised: Observed calls that raised an exception.
        unhashable: A class of arguments that have no hash; "" for none.
        is_method: Whether the first argument is the instance, or the class.
        instances: Distinct instances; 0 for a function.
        alive: Those that lived when the recording ended.
        kind: "function", "method", "coroutine" or "generator".
        result_size: The mean size of a result, estimated.
        mutable: Results that could be changed by callers.
        mutated: Those that were changed after they were returned, of `checked`.
        checked: Results that were looked at again after some time.
        changed_arguments: Observed calls that changed an argument.
        reasons: Reasons for and against, most important first.
    """

    function: str
    file: str
    line: int
    verdict: Verdict = "no"
    decorator: str = ""
    calls: int = 0
    observed: int = 0
    distinct: int = 0
    time: float = 0.0
    own: float | None = None
    mean: float = 0.0
    saved: float = 0.0
    maxsize: int = 0
    hit_ratio: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    repeats: int = 0
    same: int = 0
    different: int = 0
    raised: int = 0
    unhashable: str = ""
    is_method: bool = False
    instances: int = 0
    alive: int = 0
    kind: str = "function"
    result_size: int = 0
    mutable: int = 0
    mutated: int = 0
    checked: int = 0
    changed_arguments: int = 0
    reasons: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str:
        """The function with its place: `app.py:12 render`."""
        return f"{os.path.basename(self.file)}:{self.line} {self.function}"


def hit_cost() -> float:
    """Returns the seconds that a hit of `hotset.cached` takes here, measured in a few milliseconds.
    """

    @hotset.cached(maxsize=16)
    def one(number: int) -> int:
        return number

    one(1)
    best = 1e9
    for _ in range(20):
        start = time.perf_counter_ns()
        for _ in range(50):
            one(1)
        best = min(best, (time.perf_counter_ns() - start) / 50)
    return best / 1e9


def judge(recorder: Recorder) -> list[Finding]:
    """Returns what was found out about each function, the most worthwhile first.

    Args:
        recorder: A recorder that was stopped.
    """
    recorder.hit_cost = hit_cost()
    findings = [_judge(function, recorder) for function in recorder.observed_functions()]
    return sorted(findings, key=lambda finding: (not finding.decorator, -finding.saved, -finding.time))


def _judge(function: Function, recorder: Recorder) -> Finding:
    code = function.code
    finding = Finding(function=function.name, file=code.co_filename, line=code.co_firstlineno, calls=function.calls, observed=function.observed)
    finding.kind = "generator" if function.is_generator else "coroutine" if function.is_coroutine else "method" if function.is_method else "function"
    finding.is_method = function.is_method
    if function.is_generator:
        finding.reasons.append("a generator can be iterated only once: return a list or a tuple, and cache that function")
        return finding
    if not function.completed:
        finding.reasons.append("no observed call returned")
        return finding
    _measure(finding, function)
    _save(finding, function, recorder.hit_cost)
    against = _objections(finding, function)
    # The outermost calls of a recursive function are not cheap, though most are.
    # (A call that the system interrupts seems to take milliseconds, so the mean is no measure.)
    cheap = _median(function) < 2 * recorder.hit_cost + _UNCERTAIN and finding.mean < _CHEAP_MEAN and not function.recursive
    worth = finding.saved >= _WORTH * recorder.elapsed / 1e9 and finding.saved > 0
    doubts = _doubts(finding, function)
    if not finding.repeats and not function.raised:
        finding.reasons.append(f"no arguments were repeated in {_calls(finding.observed, 'observed call')}")
        finding.reasons += against
    elif against:
        finding.reasons += against
    elif cheap:
        finding.reasons.append(f"too cheap: a call takes about {_time(_median(function))}, and a hit {_time(recorder.hit_cost)}")
    elif not worth:
        share = finding.saved / (recorder.elapsed / 1e9) if recorder.elapsed else 0.0
        finding.reasons.append(f"little to save: {_time(finding.saved)}, {share:.1%} of the elapsed time")
    else:
        finding.verdict = "maybe" if any(doubt.startswith("check:") for doubt in doubts) else "cache"
        finding.decorator = _decorator(finding, function)
        finding.reasons += _merits(finding, function)
    if against or finding.verdict != "no":
        finding.reasons += doubts
    return finding


def _measure(finding: Finding, function: Function) -> None:
    billion = 1e9
    finding.distinct = distinct_of(function)
    # Recursive calls are within the time of the outermost one.
    finding.own = None if function.is_coroutine else function.own / function.completed * function.calls / billion
    if function.recursive and function.observed < function.calls:
        finding.time = max(function.time / billion, finding.own or 0.0)
    else:
        finding.time = function.time / billion * (function.calls / max(1, function.observed))
    total = sum(time for stream in function.streams.values() for time in stream.times if time > 0)
    finding.mean = total / function.completed / billion
    finding.repeats, finding.same, finding.different = function.repeats, function.same, function.different
    finding.raised = function.raised
    finding.unhashable = function.unhashable
    finding.instances, finding.alive = len(function.instances), function.alive
    finding.result_size = function.sizes // max(1, function.sized)
    finding.mutable, finding.mutated, finding.checked = function.mutable_results, function.mutated_results, function.checked_results
    finding.changed_arguments = function.changed_arguments


def _save(finding: Finding, function: Function, cost: float) -> None:
    """Sets what a cache would have saved, from the curve of the observed calls."""
    curve = curve_of(function)
    # Nested calls of a recursive function are within the time of the outermost ones.
    outermost = max(1, sum(time for stream in function.streams.values() for time, depth in zip(stream.times, stream.depths, strict=False) if time > 0 and not depth))
    scale = finding.calls / max(1, function.observed)

    def saved(size: Size) -> float:
        share = min(1.0, size.saved / outermost)
        return max(0.0, finding.time * share - size.lookups * scale * cost)

    for size in curve:
        entry = {"maxsize": float(size.maxsize), "hit_ratio": size.hit_ratio, "saved": saved(size)}
        finding.curve.append(entry)
    best = max((entry["saved"] for entry in finding.curve), default=0.0)
    for entry in finding.curve:
        if entry["saved"] >= _ENOUGH * best:
            finding.maxsize, finding.hit_ratio, finding.saved = int(entry["maxsize"]), entry["hit_ratio"], entry["saved"]
            break
    # The calls that were not observed had other arguments, too.
    if scale > 1 and finding.distinct > finding.maxsize // 2:
        finding.maxsize *= 2


def _objections(finding: Finding, function: Function) -> list[str]:
    """Returns the reasons for which the function must not be cached as it is."""
    reasons: list[str] = []
    if function.different and _ttl(function) is None:
        reasons.append(f"equal arguments gave different results in {function.different:,} of {function.repeats:,} repeated calls that were compared")
    if function.unknown and not function.same:
        reasons.append("results are objects whose content cannot be compared, and each call returned a new one")
    if function.unhashable_calls:
        of = f"{function.unhashable_calls:,} of {function.observed:,} calls"
        reasons.append(f"an argument of class {function.unhashable} cannot be hashed ({of}): pass a tuple or a frozenset, or a `key`")
    if function.changed_arguments:
        reasons.append(f"it changed an argument in {function.changed_arguments:,} calls, which a hit would not do")
    if function.none_results == function.sized and function.sized:
        reasons.append("it always returned None, so it is called for its effects")
    if function.mutated_results:
        reasons.append(
            f"callers changed {function.mutated_results:,} of {function.checked_results:,} results after they were returned: "
            "with a cache the next caller would get the changed object"
        )
    name = function.code.co_name
    if name.startswith("__") and name.endswith("__") and name != "__call__":
        reasons.append("a special method, which the interpreter calls: cache a function that it calls")
    if function.is_nested:
        reasons.append("it is defined within a function, so each call of that one would make a new cache")
    if function.code.co_name == "<lambda>":
        reasons.append("a lambda takes no decorator: write `def`, or `hotset.cached()(lambda ..)`")
    if function.raised and function.raised == function.completed:
        reasons.append("each call raised an exception (`negative_ttl` caches exceptions)")
    return reasons


def _doubts(finding: Finding, function: Function) -> list[str]:
    """Returns what a person must check before the function is cached."""
    reasons: list[str] = []
    effects = effects_of(function.code)
    if effects:
        reasons.append("check: " + "; ".join(effects))
    if function.different and _ttl(function) is not None:
        reasons.append(f"check: equal arguments gave different results in {function.different:,} of {function.repeats:,} repeated calls that were compared: hence the ttl")
    if function.mutable_results and not function.mutated_results:
        names = ", ".join(sorted(function.result_types))
        if function.checked_results:
            note = f"none of {function.checked_results:,} that were checked was changed"
            reasons.append(f"note: results ({names}) can be changed by callers, and all callers would share them; {note}")
        else:
            reasons.append(f"check: results ({names}) can be changed by callers, and all callers would share them")
    if function.own_hash:
        reasons.append(f"note: the hash of {function.own_hash} was not called; arguments of this class were compared by their attributes")
    if function.by_address:
        reasons.append("check: arguments were recognized by their addresses only, so repeats may be an illusion")
    if finding.repeats and function.partial_results:
        reasons.append("note: large results were compared in part only")
    if function.raised and function.raised < function.completed:
        reasons.append(f"note: {function.raised:,} of {function.completed:,} calls raised; exceptions are not cached without `negative_ttl`")
    return reasons


def _median(function: Function) -> float:
    """Returns the median time of the observed calls, in seconds."""
    times = [time for stream in function.streams.values() for time in stream.times if time >= 0]
    return median(times) / 1e9 if times else 0.0


def _calls(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _merits(finding: Finding, function: Function) -> list[str]:
    about = "" if finding.observed == finding.calls else f" of {finding.observed:,} observed calls"
    reasons = [f"{finding.hit_ratio:.1%} hits{about} with {finding.maxsize:,} results: saves {_time(finding.saved)} of {_time(finding.time)}"]
    if function.same and not function.different:
        reasons.append(f"equal arguments gave equal results in all {function.same:,} repeated calls that were compared")
    if function.is_method:
        one, many = ("class", "classes") if function.parameters[0] in ("cls", "mcs") else ("instance", "instances")
        counted = f"{finding.instances:,} {one if finding.instances == 1 else many}"
        living = f", {finding.alive:,} of which lived at the end" if finding.alive < finding.instances else ""
        reasons.append(f"a method, called on {counted}{living}: results are cached per {one}, and removed with it")
    if function.is_coroutine:
        reasons.append("a coroutine: its result is cached, and concurrent calls with equal arguments wait for one of them")
    if function.recursive:
        reasons.append("recursive: a hit saves the calls within it, too")
    if finding.maxsize and finding.result_size:
        reasons.append(f"results take about {_bytes(finding.result_size)} each, {_bytes(finding.result_size * min(finding.maxsize, finding.distinct))} in all")
    return reasons


def _ttl(function: Function) -> float | None:
    """Returns a time to live that fits results that change seldom and slowly; None if none does."""
    if not function.different or function.first_change is None:
        return None
    seconds = function.first_change / 1e9
    if seconds < 0.1 or function.different > 0.05 * function.repeats:
        return None
    half = seconds / 2
    return float(f"{half:.1g}")


def _decorator(finding: Finding, function: Function) -> str:
    settings = [f"maxsize={finding.maxsize}"]
    ttl = _ttl(function)
    if ttl is not None:
        settings.append(f"ttl={ttl:g}")
    if function.is_method and finding.maxsize <= hotset_default() and finding.instances > 1:
        # Without a maxsize there is room for 1,024 results of each instance.
        settings = settings[1:]
    return f"@hotset.cached({', '.join(settings)})" if settings else "@hotset.cached"


def hotset_default() -> int:
    """Returns the `maxsize` of `hotset.cached` without one."""
    return 1024


def effects_of(code: CodeType) -> list[str]:
    """Returns what the bytecode of a function suggests about effects and hidden inputs.

    Args:
        code: The function's code. Functions that it calls are not searched.
    """
    found: dict[str, None] = {}
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        name: Any = instruction.argval
        if name in ("time", "random") and following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            # A module: `time.sleep` is no input, and `random` has many functions.
            if name == "random" and following.argval not in _IMPURE:
                found["it uses `random`: random numbers"] = None
            continue
        match instruction.opname:
            case "STORE_GLOBAL" | "DELETE_GLOBAL":
                found[f"it assigns to the global `{name}`"] = None
            case "STORE_DEREF" if name in code.co_freevars:
                found[f"it assigns to `{name}` of the enclosing function"] = None
            case "STORE_ATTR" | "DELETE_ATTR":
                found[f"it sets the attribute `{name}` of an object"] = None
            case "LOAD_GLOBAL" | "LOAD_NAME" if name in _SIDE_EFFECTS and hasattr(builtins, name):
                found[f"it calls `{name}`"] = None
            case "LOAD_GLOBAL" | "LOAD_ATTR" | "LOAD_METHOD" if name in _IMPURE:
                found[f"it uses `{name}`: {_IMPURE[name]}"] = None
            case _:
                pass
    return list(found)


def _time(seconds: float) -> str:
    """Returns a duration in a fitting unit: `1.2 s`, `3.4 ms`, `560 ns`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def _bytes(number: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} bytes"


format_time, format_bytes = _time, _bytes
