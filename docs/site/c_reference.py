"""Writes the page of the C API from include/hotset.h: sections, types, functions, constants.

    python c_reference.py HEADER

`page` fails if the header declares something that it does not understand, or that the page would
lack.
"""

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
NAME = re.compile(r"\bhotset_\w+|\bHOTSET_\w+")
# Names that cbindgen makes for the compiler only.
INTERNAL = {"HOTSET_H"}


def names(header):
    """Returns the names that a header declares: what its code mentions, comments left out."""
    return set(NAME.findall(COMMENT.sub(" ", header))) - INTERNAL


def text_of(comment):
    """Returns the paragraphs of a comment, without its stars."""
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in comment.strip("/").strip("*").strip("/").splitlines()]
    return "\n".join(lines).strip()


def body(comment, known, own=""):
    """Returns the Markdown of a doc comment, `@param` and `@return` as fields."""
    description, *fields = re.split(r"(?m)^@", text_of(comment))
    lines = ["", linked(description.strip(), known, own), ""]
    for field in fields:
        kind, rest = field.split(None, 1)
        rest = " ".join(rest.split())
        if kind == "param":
            name, rest = rest.split(None, 1)
            lines.append(f":param {name}: {linked(rest, known, own)}")
        elif kind == "return":
            lines.append(f":returns: {linked(rest, known, own)}")
        else:
            raise SystemExit(f"hotset.h: unknown field @{kind}")
    return [*lines, ""]


def linked(text, known, own):
    """Returns Markdown of a comment's text: declared names are links, and stars are stars."""
    pieces = re.split(r"(`[^`]*`)", text)
    for at in range(0, len(pieces), 2):
        piece = re.sub(r"([\\*<\[\]])", r"\\\1", pieces[at])
        pieces[at] = NAME.sub(lambda found: ("{any}" if found[0] in known - {own} else "") + f"`{found[0]}`", piece)
    return "".join(pieces)


def directive(kind, signature, lines, depth=3):
    """Returns a directive of Sphinx's C domain, with its content."""
    fence = "`" * depth
    return [f"{fence}{{c:{kind}}} {signature}", *lines, fence, ""]


def flat(code):
    """Returns a declaration in one line."""
    code = re.sub(r"\s+", " ", code).strip()
    return code.replace("( ", "(").replace(" )", ")")


def members(code):
    """Yields the fields of a struct, or the values of an enum: comment and declaration."""
    for comment, declaration in re.findall(r"/\*\*(.*?)\*/\s*([^/]+?)(?=\s*/\*\*|\s*\Z)", code, re.DOTALL):
        yield comment, flat(declaration).rstrip(";,")


def preamble(header):
    """Returns the Markdown of the header's first comment: its rules, and its example."""
    text = text_of(re.match(r"/\*(.*?)\*/", header, re.DOTALL)[1])
    rules = text.split("RULES for all functions.")[1].split("SECTIONS:")[0].strip()
    example = text.split("EXAMPLE")[1]
    code = [line[4:] for line in example.splitlines() if line.startswith("    ")]
    after = example.rsplit("\n\n", 1)[1]
    first, *items = re.split(r"(?m)^- ", rules)
    lines = ["## Rules", "", "These hold for all functions. " + linked(" ".join(first.split()), set(), "")]
    for item in items:
        name, rest = " ".join(item.split()).split(". ", 1)
        lines += ["", f"- **{name}.** {linked(rest, names(header), '')}"]
    return [*lines, "", "## Example", "", "```c", *code, "```", "", linked(" ".join(after.split()), set(), ""), ""]


def constants(code):
    """Yields the macros: their comments and names."""
    comment = None
    for found in re.finditer(r"/\*\*?(.*?)\*/|^#define (HOTSET_\w+)( [^\n]*)?$", code, re.DOTALL | re.MULTILINE):
        if found[2] is None:
            comment = found[1]
        elif found[2] not in INTERNAL:
            yield comment, found[2], (found[3] or "").strip()


def types(code, known):
    """Yields the directives of the types, in the order of the header."""
    pattern = re.compile(
        r"/\*\*(?P<comment>(?:(?!\*/).)*)\*/\s*"
        r"(?:typedef struct (?P<opaque>\w+) \w+;"
        r"|typedef (?P<result>\w+) \(\*(?P<function>\w+)\)\((?P<arguments>[^;]*?)\);"
        r"|typedef struct \{(?P<fields>.*?)\n\} (?P<struct>\w+);"
        r"|typedef enum \{(?P<values>.*?)\n\} (?P<plain>\w+);"
        r"|enum (?P<enum>\w+)\n#if.*?\{(?P<enumerators>.*?)\n\};)",
        re.DOTALL,
    )
    for found in pattern.finditer(code):
        name = found["opaque"] or found["function"] or found["struct"] or found["plain"] or found["enum"]
        content = body(found["comment"], known, name)
        if found["opaque"]:
            yield from directive("struct", name, content)
        elif found["function"]:
            # (The C domain documents a pointer to a function as a type.)
            signature = flat(f"{found['result']} (*{name})({found['arguments']})")
            yield from directive("type", signature, content)
        elif found["struct"]:
            for comment, declaration in members(found["fields"]):
                content += directive("member", declaration, body(comment, known))
            yield from directive("struct", name, content, 4)
        else:
            for comment, declaration in members(found["values"] or found["enumerators"]):
                content += directive("enumerator", declaration, body(comment, known))
            yield from directive("enum", name, content, 4)


def functions(code, known):
    """Yields the directives of the functions, in the order of the header."""
    for comment, declaration in re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*([^;/#]+\));", code, re.DOTALL):
        signature = flat(declaration)
        yield from directive("function", signature, body(comment, known, NAME.findall(signature.split("(")[0])[-1]))


def page(header):
    """Returns the page of the C API, in Markdown for Sphinx."""
    known = names(header)
    declarations, functions_part = header.split('extern "C" {', 1)
    lines = ["# Functions of hotset.h", "", "Generated from `include/hotset.h`, version " + re.search(r'VERSION_STRING "(.*)"', header)[1] + ".", ""]
    lines += ["What the API guarantees is on [the page of the C API](c.md).", "", *preamble(header)]
    banner = re.compile(r"/\* -+\n \* (\d+)\. (.*?)\n \* -+ \*/", re.DOTALL)
    found = banner.split(functions_part)
    for title, code in zip(found[2::3], found[3::3], strict=True):
        lines += [f"## {' '.join(title.split())}", "", *functions(code, known)]
    first_comment_ends = declarations.index("*/") + 2
    lines += ["## Types", "", *types(declarations[first_comment_ends:], known), "## Constants", ""]
    for comment, name, value in constants(declarations[first_comment_ends:]):
        lines += directive("macro", name, [*body(comment or "", known, name), f"`{value}`" if value else "", ""])
    text = "\n".join(lines) + "\n"
    described = set(re.findall(r"\{c:\w+\} [^\n]*?\b((?:hotset|HOTSET)_\w+)(?= =|\)?\(|\)|$)", text, re.MULTILINE))
    missing = known - described
    if missing:
        raise SystemExit(f"hotset.h: not on the page: {', '.join(sorted(missing))}")
    return text


if __name__ == "__main__":
    print(page(Path(sys.argv[1]).read_text()))
