"""Runs a program again with the proposed caches, and compares results, output and time.

The decorators are applied in memory: the source of a function's module is compiled with the line
added. All runs are processes of their own, with the same start.
"""

import ast
import inspect
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import hotset
from hotset._advise.judge import format_time
from hotset._advise.observe import Description
from hotset._advise.run import run

if TYPE_CHECKING:
    from hotset._advise.command import Options

# Run with these caches.


class _Applied:
    """The cache of one function of a plan, in this process."""

    def __init__(self, planned: dict[str, Any], check: bool) -> None:
        self.planned = planned
        self.check = check
        self.caches: list[Any] = []
        self.compared = self.different = self.unknown = 0
        self.executions = threading.local()

    def decorate(self, function: Callable[..., Any]) -> Any:
        make: Any = hotset.cached
        decorate = make(**self.planned["settings"])
        if not self.check:
            cached = decorate(function)
            self.caches.append(cached)
            return cached
        decorate = make(**self.planned["settings"], method=self.planned["method"])
        if inspect.iscoroutinefunction(function):
            return self._checked_coroutine(function, decorate)
        return self._checked(function, decorate)

    def _checked(self, function: Callable[..., Any], decorate: Any) -> Any:
        """Returns a function that calls `function` each time, and compares hits with its results.

        So it has the effects that it has without a cache.
        """

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.executions.count = getattr(self.executions, "count", 0) + 1
            return function(*args, **kwargs)

        cached = decorate(counted)
        self.caches.append(cached)

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            before = getattr(self.executions, "count", 0)
            result = cached(*args, **kwargs)
            if getattr(self.executions, "count", 0) == before:
                self._compare(result, function(*args, **kwargs))
            return result

        return checked

    def _checked_coroutine(self, function: Callable[..., Any], decorate: Any) -> Any:
        cached = decorate(function)
        self.caches.append(cached)

        @wraps(function)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            is_hit = cached.cache_contains(*args, **kwargs)
            result = await cached(*args, **kwargs)
            if is_hit:
                self._compare(result, await function(*args, **kwargs))
            return result

        return checked

    def _compare(self, hit: Any, fresh: Any) -> None:
        one, other = Description(by_value=True), Description(by_value=True)
        if one(hit) == other(fresh):
            self.compared += 1
        elif one.is_opaque or other.is_opaque:
            self.unknown += 1
        else:
            self.compared += 1
            self.different += 1

    def outcome(self) -> dict[str, Any]:
        infos = [cached.cache_info() for cached in self.caches]
        hits, misses = sum(info.hits for info in infos), sum(info.misses for info in infos)
        return {
            "function": self.planned["function"],
            "hits": hits,
            "misses": misses,
            "compared": self.compared,
            "different": self.different,
            "unknown": self.unknown,
        }


_applied: list[_Applied] = []


def applied(index: int) -> Callable[[Callable[..., Any]], Any]:
    """Returns the decorator of a function of the plan. Called by the compiled sources.

    Args:
        index: Its place in the plan.
    """
    return _applied[index].decorate


class _Decorating(ast.NodeTransformer):
    """Adds a decorator, innermost, to the functions of one file that the plan has."""

    def __init__(self, functions: dict[tuple[str, int], int]) -> None:
        self.functions = functions
        self.scope: list[str] = []

    def _visit_scope(self, node: Any, *names: str) -> Any:
        self.scope += names
        self.generic_visit(node)
        del self.scope[len(self.scope) - len(names) :]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        return self._visit_scope(node, node.name)

    def visit_FunctionDef(self, node: Any) -> Any:
        name = ".".join([*self.scope, node.name])
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        self._visit_scope(node, node.name, "<locals>")
        index = self.functions.get((name, line))
        if index is not None:
            call = f"__import__({__name__!r}, fromlist=['applied']).applied({index})"
            decorator = ast.parse(call, mode="eval").body
            for each in ast.walk(decorator):
                ast.copy_location(each, node)
            node.decorator_list.append(decorator)
        return node

    visit_AsyncFunctionDef = visit_FunctionDef


class _Plan(MetaPathFinder):
    """The plan of this process. Modules that it concerns are compiled with the decorators."""

    def __init__(self, functions: list[dict[str, Any]]) -> None:
        self.files: dict[str, dict[tuple[str, int], int]] = {}
        for index, planned in enumerate(functions):
            of_file = self.files.setdefault(os.path.realpath(planned["file"]), {})
            of_file[planned["function"], planned["line"]] = index

    def compile(self, source: bytes, path: str) -> CodeType:
        functions = self.files.get(os.path.realpath(path))
        tree = ast.parse(source, path)
        if functions:
            tree = _Decorating(functions).visit(tree)
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.origin and os.path.realpath(spec.origin) in self.files:
                    spec.loader = _Loader(fullname, spec.origin, self)
                return spec
        return None


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, plan: _Plan) -> None:
        super().__init__(name, path)
        self.plan = plan

    def get_code(self, fullname: str) -> CodeType:
        return self.plan.compile(self.get_data(self.path), self.path)


def run_with_plan(options: "Options") -> None:
    """Runs a program with the caches of a plan, and writes the outcome to the plan's file.

    Args:
        options: The arguments of the command.
    """
    path = os.path.abspath(cast(str, options.apply))
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    plan = _Plan(content["functions"])
    _applied.extend(_Applied(planned, content["check"]) for planned in content["functions"])
    sys.meta_path.insert(0, plan)
    started: list[float] = []

    def start() -> None:
        started.append(time.perf_counter())

    def finish() -> None:
        outcome = {"seconds": time.perf_counter() - started[0], "functions": [each.outcome() for each in _applied]}
        with open(path + ".outcome", "w", encoding="utf-8") as file:
            json.dump(outcome, file)

    run(options.program, start, finish, plan.compile)


# Compare runs.


class _Outcome:
    """A run of the program with a plan."""

    def __init__(self, folder: str, name: str, functions: list[dict[str, Any]], check: bool, program: list[str], environment: dict[str, str]) -> None:
        plan, output = os.path.join(folder, name), os.path.join(folder, name + ".out")
        with open(plan, "w", encoding="utf-8") as file:
            json.dump({"functions": functions, "check": check}, file)
        with open(output, "wb") as out, open(os.path.join(folder, name + ".err"), "wb") as err:
            command = [*_python(), "-m", "hotset", "advise", "--apply", plan, "--", *program]
            self.code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment).returncode
        with open(output, "rb") as out:
            self.output = out.read()
        self.seconds = 0.0
        self.functions: list[dict[str, Any]] = []
        # A program that was killed wrote none.
        if os.path.exists(plan + ".outcome"):
            with open(plan + ".outcome", encoding="utf-8") as file:
                outcome = json.load(file)
            self.seconds, self.functions = outcome["seconds"], outcome["functions"]

    @property
    def behavior(self) -> tuple[int, bytes]:
        return self.code, self.output


def _python() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # pyright: ignore
    return [sys.executable, *flags]


def _settings(finding: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings in a decorator, such as `@hotset.cached(maxsize=10, ttl=2)`."""
    call = ast.parse(finding["decorator"].removeprefix("@"), mode="eval").body
    if not isinstance(call, ast.Call):
        return {}
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def verify(options: "Options") -> int:
    """Records a program, runs it again with the proposed caches, and prints the differences.

    Args:
        options: The arguments of the command.

    Returns:
        The exit code of the program in its first run.
    """
    program = options.program.command()
    with tempfile.TemporaryDirectory(prefix="hotset-advise-") as folder:
        figures = options.json or os.path.join(folder, "figures.json")
        command = [*_python(), "-m", "hotset", "advise", "--json", figures]
        for option, value in (("--text", options.text), ("--svg", options.svg)):
            command += [option, value] if value is not None else []
        for name in options.include:
            command += ["--include", name]
        code = subprocess.run([*command, "--", *program]).returncode
        if not os.path.exists(figures):
            print("hotset advise --verify: the recorded run left no report, so there is nothing to verify", file=sys.stderr)
            return _exit_code(code)
        with open(figures, encoding="utf-8") as file:
            data = json.load(file)
        result = _verification(data["findings"], folder, program)
        if options.json is not None:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({**data, "verification": result}, file, indent=1)
        text = _text(result)
        if options.text is not None:
            with open(options.text, "a", encoding="utf-8") as file:
                file.write("\n" + text)
        else:
            print("\n" + text, end="", file=sys.stderr)
    return _exit_code(code)


def _exit_code(code: int) -> int:
    # As a shell reports a signal.
    return 128 - code if code < 0 else code


def _verification(findings: list[dict[str, Any]], folder: str, program: list[str]) -> dict[str, Any]:
    functions = [
        {
            "file": finding["file"],
            "line": finding["line"],
            "function": finding["function"],
            "method": finding["is_method"],
            "settings": _settings(finding),
        }
        for finding in findings
        if finding["decorator"]
    ]
    if not functions:
        return {"functions": []}
    # Sets are iterated in the same order in all runs.
    environment = {"PYTHONHASHSEED": "0", **os.environ}
    plain = _Outcome(folder, "plain", [], False, program, environment)
    cached = _Outcome(folder, "cached", functions, False, program, environment)
    checked = _Outcome(folder, "checked", functions, True, program, environment)
    same = plain.behavior == cached.behavior
    repeatable = same or _Outcome(folder, "again", [], False, program, environment).behavior == plain.behavior
    nothing: dict[str, Any] = {"hits": 0, "misses": 0, "compared": 0, "different": 0, "unknown": 0}
    rows: list[dict[str, Any]] = []
    for index, planned in enumerate(functions):
        # A run that was killed has none.
        timed = cached.functions[index] if cached.functions else nothing
        compared = checked.functions[index] if checked.functions else nothing
        row = {"function": planned["function"], "hits": timed["hits"], "misses": timed["misses"]}
        rows.append({**row, **{name: compared[name] for name in ("compared", "different", "unknown")}})
    return {
        "seconds_without": plain.seconds,
        "seconds_with": cached.seconds,
        "exit_code_without": plain.code,
        "exit_code_with": cached.code,
        "output_bytes": len(plain.output),
        "same_output": plain.output == cached.output,
        "repeatable": repeatable,
        "functions": rows,
    }


def _text(result: dict[str, Any]) -> str:
    if not result["functions"]:
        return "verify: no cache was proposed, so there is nothing to verify\n"
    without, with_caches = result["seconds_without"], result["seconds_with"]
    times = f": {without / with_caches:.1f} times as fast" if without and with_caches else ""
    lines = [
        f"verify: without caches {format_time(without)}, exit code {result['exit_code_without']}",
        f"        with caches    {format_time(with_caches)}, exit code {result['exit_code_with']}{times}",
    ]
    if result["exit_code_with"] != result["exit_code_without"] and result["repeatable"]:
        lines.append("        THE EXIT CODE DIFFERS")
    if result["same_output"]:
        lines.append(f"        standard output is the same ({result['output_bytes']:,} bytes)")
    elif result["repeatable"]:
        lines.append("        STANDARD OUTPUT DIFFERS, though it is the same in two runs without caches")
    else:
        lines.append("        standard output differs, but also between two runs without caches")
    for each in result["functions"]:
        lookups = each["hits"] + each["misses"]
        line = f"        {each['function']}: {each['hits']:,} hits in {lookups:,} calls"
        line += f" ({each['hits'] / lookups:.1%})" if lookups else ""
        line += f"; {each['compared']:,} hits compared with a call"
        line += f", {each['different']:,} DIFFERENT" if each["different"] else ", all equal" if each["compared"] else ""
        line += f", {each['unknown']:,} not comparable" if each["unknown"] else ""
        lines.append(line)
    return "\n".join(lines) + "\n"
