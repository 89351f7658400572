"""The command `python -m hotset advise`."""

import os
import sys
from typing import NamedTuple, NoReturn

from hotset._advise.run import Program

_USAGE = "usage: python -m hotset advise [options] [--] script.py [arguments] | -m module [arguments] | pytest [arguments]"
_HELP = f"""{_USAGE}

Runs a program, records the calls of its own functions, and reports which of them are worth caching,
with the line to write. The report goes to standard error after the program has ended.

options:
  --include NAME   also record the functions of an installed package (or of a folder)
  --text FILE      write the report to a file instead; - is standard output
  --json FILE      write all figures as JSON; - is standard output
  --svg FILE       write a picture
  --verify         run the program three more times: without caches, with the proposed ones, and
                   with the results of each hit compared to a call; reports times and differences
  -h, --help       print this
"""


class Options(NamedTuple):
    """The arguments of the command.

    Attributes:
        program: What to run.
        include: Packages and folders to record.
        text: Where the report goes; None for standard error.
        json: The file for JSON; None for none.
        svg: The file for the picture; None for none.
        verify: Whether to run the program again with caches.
        apply: The file of a plan of caches to apply, for `--verify`.
    """

    program: Program
    include: tuple[str, ...]
    text: str | None
    json: str | None
    svg: str | None
    verify: bool
    apply: str | None


def _fail(message: str) -> NoReturn:
    print(f"python -m hotset advise: {message}", file=sys.stderr)
    sys.exit(2)


def _path(option: str, given: str) -> str:
    """Returns the absolute path of a file to write: the program may change the directory."""
    if given == "-":
        return given
    path = os.path.abspath(given)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        _fail(f"{option} {given}: there is no folder {folder}")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        _fail(f"{option} {given}: cannot be written")
    return path


def parse(arguments: list[str]) -> Options:
    """Returns the parsed arguments; exits with an explanation if they are wrong.

    Args:
        arguments: Those after `advise`.
    """
    values: dict[str, str] = {}
    include: list[str] = []
    verify = False
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "--"):
        option, equals, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(_HELP, end="")
            sys.exit(0)
        if option == "--verify" and not equals:
            verify = True
            continue
        if option not in ("--include", "--text", "--json", "--svg", "--apply"):
            _fail(f"unknown option {option}\n{_USAGE}")
        if not equals:
            if not rest:
                _fail(f"{option} needs a value\n{_USAGE}")
            value = rest.pop(0)
        if option == "--include":
            include.append(value)
        else:
            values[option] = value if option == "--apply" else _path(option, value)
    if rest[:1] == ["--"]:
        del rest[0]
    if rest[:1] == ["-m"]:
        if len(rest) < 2:
            _fail(f"-m needs the name of a module\n{_USAGE}")
        program = Program(rest[1], rest[2:], True)
    elif not rest:
        _fail(f"name a program\n{_USAGE}")
    elif rest[0] == "pytest" and not os.path.exists(rest[0]):
        program = Program("pytest", rest[1:], True)
    else:
        program = Program(rest[0], rest[1:], False)
        if not os.path.exists(rest[0]):
            _fail(f"can't open file {os.path.abspath(rest[0])!r}: [Errno 2] No such file or directory")
    if verify and "-" in (values.get("--text"), values.get("--json")):
        _fail("--verify compares the program's standard output: name a file for the report")
    return Options(program, tuple(include), values.get("--text"), values.get("--json"), values.get("--svg"), verify, values.get("--apply"))


def _write(path: str, content: str) -> None:
    if path == "-":
        print(content, end="", flush=True)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def _print_error(text: str) -> None:
    """Prints to standard error, even where the program closed or replaced it."""
    try:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
            sys.stdout.flush()
        print(text, end="", file=sys.stderr, flush=True)
    except (AttributeError, OSError, ValueError):
        try:
            os.write(2, text.encode(errors="replace"))
        except OSError:
            pass


def main(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: The arguments after `advise`.
    """
    options = parse(arguments)
    if options.verify:
        from hotset._advise.verify import verify

        sys.exit(verify(options))
    if options.apply is not None:
        from hotset._advise.verify import run_with_plan

        run_with_plan(options)
        return
    from hotset._advise.advice import Advice
    from hotset._advise.run import run

    advice = Advice(options.include)

    started: list[bool] = []

    def start() -> None:
        try:
            advice.__enter__()
            started.append(True)
        except RuntimeError as error:
            _fail(str(error))

    def report() -> None:
        if not started:
            return
        try:
            advice.__exit__(None, None, None)
            text = str(advice)
            if options.json is not None:
                _write(options.json, advice.to_json())
            if options.svg is not None:
                _write(options.svg, advice.to_svg())
            if options.text is not None:
                _write(options.text, text)
            else:
                _print_error("\n" + text)
        except Exception as error:
            _print_error(f"hotset advise: the report failed: {type(error).__name__}: {error}\n")

    run(options.program, start, report)
