"""Runs a script or a module as `python` itself does: as `__main__`, with its arguments and exit.

The program's exceptions are printed without the frames of this package. What the program does at
its exit happens before `at_exit` is called.
"""

import atexit
import builtins
import functools
import os
import runpy
import sys
import zipfile
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, NamedTuple, NoReturn

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

Compile = Callable[[bytes, str], CodeType]


class Program(NamedTuple):
    """What to run.

    Attributes:
        name: The path of a script, a folder or a zip file; or the name of a module.
        arguments: Its arguments.
        is_module: Whether the name is that of a module.
    """

    name: str
    arguments: list[str]
    is_module: bool

    def command(self) -> list[str]:
        """Returns the arguments of `python` that run it."""
        return [*(["-m"] if self.is_module else []), self.name, *self.arguments]


def compile_source(source: bytes, path: str) -> CodeType:
    """Compiles a script.

    Args:
        source: Its content.
        path: Its path.
    """
    code: CodeType = compile(source, path, "exec", dont_inherit=True)
    return code


def run(program: Program, before: Callable[[], None], at_exit: Callable[[], None], compile: Compile = compile_source) -> None:
    """Runs a program. Returns if it ends without an exception, or raises what makes Python exit.

    Args:
        program: What to run.
        before: Called when all is ready, immediately before the program.
        at_exit: Called once: after the program's own functions of `atexit`, or before it replaces
            or ends the process by `os.exec*` or `os._exit`.
        compile: Compiles the script.
    """
    finish = _once(at_exit)
    # The first registered function is the last one called.
    atexit.register(finish)
    for name in ("_exit", "execv", "execve"):
        setattr(os, name, _finishing(getattr(os, name), finish))
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    run_main: Callable[..., Any] = runpy._run_module_as_main  # type: ignore[attr-defined]  # pyright: ignore
    path = os.path.abspath(program.name)
    try:
        if program.is_module:
            sys.argv = ["-m", *program.arguments]
            if program.name == "pytest":
                _exempt_from_rewriting()
            before()
            run_main(program.name)
        elif os.path.isdir(path) or (os.path.isfile(path) and zipfile.is_zipfile(path)):
            sys.argv = [program.name, *program.arguments]
            _set_first_path(path)
            before()
            run_main("__main__", False)
        else:
            sys.argv = [program.name, *program.arguments]
            with open(path, "rb") as file:
                source = file.read()
            _set_first_path(os.path.dirname(os.path.realpath(path)))
            main.__file__ = path
            main.__dict__["__cached__"] = None
            main.__loader__ = SourceFileLoader("__main__", path)
            before()
            exec(compile(source, path), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        _print_and_exit(error)


def _exempt_from_rewriting() -> None:
    """Tells pytest not to warn that it cannot rewrite the assertions of this package.

    pytest rewrites the packages of its plugins, which this one has, unless they are imported.
    """
    package = sys.modules["hotset"]
    package.__doc__ = f"{package.__doc__}\nPYTEST_DONT_REWRITE\n"


def _set_first_path(path: str) -> None:
    # With -P or -I, Python does not add the script's folder. `python -m hotset` added another one.
    if not sys.flags.safe_path:
        sys.path[0] = path


def _once(function: Callable[[], None]) -> Callable[[], None]:
    process = os.getpid()
    done: list[bool] = []

    def call() -> None:
        # Not in a child process that was forked.
        if not done and os.getpid() == process:
            done.append(True)
            function()

    return call


def _finishing(function: Callable[..., Any], finish: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def finish_first(*args: Any, **kwargs: Any) -> Any:
        finish()
        return function(*args, **kwargs)

    return finish_first


def _without_own_frames(traceback: TracebackType | None) -> TracebackType | None:
    entries: list[TracebackType] = []
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if not name.startswith(_PACKAGE) and (entries or "runpy" not in name):
            entries.append(traceback)
        traceback = traceback.tb_next
    result: TracebackType | None = None
    for entry in reversed(entries):
        result = TracebackType(result, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return result


def _print_and_exit(error: BaseException) -> NoReturn:
    """Prints an exception as Python does, and makes Python exit as it would."""
    error.__traceback__ = _without_own_frames(error.__traceback__)
    sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(error, KeyboardInterrupt):
        sys.exit(1)
    # Python ends by the signal itself if it sees this exception last, and prints nothing more.
    sys.excepthook = _ignore
    raise error


def _ignore(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    pass
