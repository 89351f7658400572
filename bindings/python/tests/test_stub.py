"""The docstrings of the stub of the native part are those of the native part."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hotset
import pytest
from hotset import _hotset

STUB = Path(hotset.__file__).with_name("_hotset.pyi")


def documented() -> Iterator[tuple[str, str]]:
    """Returns the qualified names in the stub that have a docstring, each with it."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef):
                continue
            # A setter shares the docstring of its property, which is the getter's.
            if isinstance(child, ast.FunctionDef) and any(isinstance(d, ast.Attribute) for d in child.decorator_list):
                continue
            text = ast.get_docstring(child)
            if text:
                yield prefix + child.name, text.strip()
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")

    yield from walk(ast.parse(STUB.read_text()), "")


def native(name: str) -> Any:
    found: Any = _hotset
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "text"), [pytest.param(*pair, id=pair[0]) for pair in documented()])
def test_stub_docstring_equals_native(name: str, text: str) -> None:
    assert inspect.cleandoc(native(name).__doc__ or "") == text
