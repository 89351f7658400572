"""Stages the sources of the site: the pages of the repository, with links as the site needs them.

    python stage.py OUTPUT

The Markdown of the repository is what a forge shows, so its links are those of files. Here each
page gets its place in the site, a link to another page becomes one to that place, and a link to any
other file one to the repository. The front page is made of the README, with its quickstarts in
tabs, and the navigation of docs/README.md. Pages that no Markdown has are generated: the C API from
its header (`c_reference.py`), and the Python API from the package (`python_reference.py`).
"""

import posixpath
import re
import sys
from pathlib import Path

import c_reference
import python_reference

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/hotset/hotset"
# Pages outside of docs, by their place in the site.
OTHERS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[[^]]*\]\(([^)\s]+)\)")
# Pages that a section of the navigation has in the site only, after those of docs/README.md.
GENERATED = {
    "Reference": [
        "Python: all calls <reference/python-calls>",
        "Python: all modules <reference/python-modules>",
        "C: all functions <reference/c-functions>",
    ]
}
# The notes that lead from a page to what the site has beside it.
NOTES = {
    "docs/reference/rust.md": 'Every type and function: <a href="../rust/hotset/index.html">the crate\'s rustdoc</a>.',
    "docs/reference/c.md": "Every function, type and constant: [the functions of hotset.h](c-functions.md).",
    "docs/reference/python.md": "Every class and function: [the calls of the package](python-calls.md), [its other modules](python-modules.md).",
}


def place(path):
    """Returns the place in the site of the page `path` of the repository."""
    if path in OTHERS:
        return OTHERS[path]
    if path == "docs/README.md":
        return "index.md"  # of which the navigation is made
    path = path.removeprefix("docs/")
    return path.removesuffix("README.md") + "index.md" if path.endswith("/README.md") else path


def pages():
    """Yields the paths of the pages of the site, relative to the repository."""
    yield from (name for name in OTHERS if (ROOT / name).exists())
    for page in sorted((ROOT / "docs").rglob("*.md")):
        yield page.relative_to(ROOT).as_posix()


def prose_lines(text):
    """Yields the lines of a page, each with whether it is outside of code blocks."""
    fenced = False
    for line in text.splitlines(keepends=True):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        yield line, not fenced and not fence


def relinked(path, text, known, copied):
    """Returns the text of the page `path` with links of the site; adds its pictures to `copied`."""
    here = posixpath.dirname(path)

    def link(found):
        target = found[1]
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        file, mark, heading = target.partition("#")
        file = posixpath.normpath(posixpath.join(here, file))
        if file in known:
            return f"]({posixpath.relpath(place(file), posixpath.dirname(place(path)) or '.')}{mark}{heading})"
        if not (ROOT / file).exists():
            raise SystemExit(f"{path}: no such file: {target}")
        if file in copied:
            return f"]({posixpath.relpath(copied[file], posixpath.dirname(place(path)) or '.')})"
        kind = "tree" if (ROOT / file).is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{file}{mark}{heading})"

    lines = list(prose_lines(text))
    # (The text of a picture may be broken over lines.)
    for image in IMAGE.findall("".join(line for line, is_prose in lines if is_prose)):
        if "://" not in image:
            file = posixpath.normpath(posixpath.join(here, image))
            copied.setdefault(file, file.removeprefix("docs/"))
    return "".join(LINK.sub(link, line) if is_prose else line for line, is_prose in lines)


def sections(text):
    """Returns the sections of a page by heading, and under "" what precedes the first heading."""
    found, name = {"": ""}, ""
    for line, is_prose in prose_lines(text):
        if is_prose and line.startswith("## "):
            name = line[3:].strip()
            found[name] = ""
        else:
            found[name] += line
    return found


def capitalized(title):
    """Returns a title with its first letter in upper case, except the name of the project."""
    return title if title.startswith("hotset") else title[:1].upper() + title[1:]


def navigation(contents):
    """Returns the toctrees of the site, a caption for each section of docs/README.md."""
    trees = []
    for name, text in sections(contents).items():
        links = re.findall(r"\[([^]]+)\]\(([^)\s]+)\.md\)", " ".join(text.split()))
        entries = {target: f"{capitalized(title.replace('`', ''))} <{target}>" for title, target in links}
        if entries and name:
            trees.append((name, [*entries.values(), *GENERATED.get(name, [])]))
    lines = []
    for name, entries in trees:
        lines += ["```{toctree}", ":hidden:", f":caption: {name}", "", *entries, "```", ""]
    return "\n".join(lines)


def front(readme, contents):
    """Returns the front page: the README, with its quickstarts in tabs, and the navigation."""
    parts = sections(readme)
    head, *quickstarts = re.split(r"(?m)^\*\*(Python|Rust|C)\*\*: ", parts.pop(""))
    for name in ("Links", "License"):
        parts.pop(name)
    # What follows the last program is not part of its tab.
    last, below = re.fullmatch(r"(.*^```$)(.*)", quickstarts[-1], re.DOTALL | re.MULTILINE).groups()
    quickstarts[-1] = last
    tabs = []
    for language, text in zip(quickstarts[::2], quickstarts[1::2], strict=True):
        tabs += [f":::{{tab-item}} {language}", f":sync: {language}", "", text.strip(), "", ":::", ""]
    assert len(quickstarts) == 6, "the README has three quickstarts"
    lines = [head.strip(), "", "::::{tab-set}", "", *tabs, "::::", "", below.strip(), ""]
    for name, text in parts.items():
        lines += [f"## {name}", "", text.strip(), ""]
    return "\n".join(lines) + "\n" + navigation(contents)


def without_hidden_lines(text):
    """Returns a page without the lines of its Rust that rustdoc hides, too."""
    hide = lambda block: re.sub(r"(?m)^ *#( .*)?\n", "", block[0])  # noqa: E731
    return re.sub(r"(?ms)^```rust\n.*?^```", hide, text)


def with_children(path, text):
    """Returns the index of a directory with a toctree of the pages that it lists."""
    children = dict.fromkeys(target for target in LINK.findall(text) if re.fullmatch(r"[\w-]+\.md", target))
    if not path.startswith("docs/") or not path.endswith("/README.md") or path == "docs/README.md":
        return text
    return "\n".join([text, "```{toctree}", ":hidden:", "", *(child.removesuffix(".md") for child in children), "```", ""])


def with_note(text, note):
    """Returns a page with a note below its heading."""
    heading, rest = text.split("\n", 1)
    return f"{heading}\n\n:::{{seealso}}\n{note}\n:::\n{rest}"


def with_program(path, text):
    """Returns the page of a recipe with its program below."""
    program = re.search(r"\]\((\.\./\.\./examples/recipes/\w+\.py)\)", text)
    if not path.startswith("docs/recipes/") or program is None:
        return text
    source = (ROOT / path).parent.joinpath(program[1]).resolve().read_text()
    return f"{text.rstrip()}\n\n## The program\n\n```python\n{source.rstrip()}\n```\n"


def main(output):
    known, copied, texts = set(pages()), {}, {}
    # Pictures first, so that other links to them lead to the copies, too.
    for path in sorted(known):
        relinked(path, (ROOT / path).read_text(), known, copied)
    linked = {path: relinked(path, (ROOT / path).read_text(), known, copied) for path in sorted(known)}
    contents = linked.pop("docs/README.md")
    for path, text in linked.items():
        text = without_hidden_lines(text)
        text = with_children(path, with_program(path, text))
        texts[place(path)] = with_note(text, NOTES[path]) if path in NOTES else text
    texts["index.md"] = front(texts["index.md"], contents)
    texts["reference/c-functions.md"] = c_reference.page((ROOT / "include/hotset.h").read_text())
    texts.update(python_reference.pages(ROOT / "bindings/python/python/hotset"))
    files = {name: text.encode() for name, text in texts.items()}
    files.update((name, (ROOT / source).read_bytes()) for source, name in copied.items())
    for file in output.rglob("*"):
        if file.is_file() and file.relative_to(output).as_posix() not in files:
            file.unlink()
    # A file that stays as it was keeps its time: Sphinx reads changed files only.
    for name, content in files.items():
        file = output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
