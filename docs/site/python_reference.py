"""Writes the pages of the Python API: which public names sphinx-autoapi describes, and where.

Nothing is imported: names, signatures and docstrings come from the sources and the stub.
"""

import ast

CALLS = {
    "Functions": (
        "`lru_cache` and `cache` are the ones of functools; `cached` is the decorator with all settings.",
        ["hotset.cached", "hotset.lru_cache", "hotset.cache"],
    ),
    "What a cached function has": (
        "At run time these are attributes of the function. The classes are for type checkers only.",
        ["hotset._types.Cached", "hotset._types.AsyncCached"],
    ),
    "The mapping": ("", ["hotset.Cache", "hotset.shared"]),
    "Values and deadlines": (
        "A `Ttl` is what calls take as the expiration of one value: a number of seconds or a `timedelta` (0 or less "
        "expires the entry immediately), `None` for never, `...` for the setting of the cache, or `hotset.KEEP` for the "
        "deadline of the entry that is replaced. `Seconds` is a number or a `timedelta`.",
        ["hotset.WithTtl", "hotset.KEEP", "hotset.MISSING"],
    ),
    "Statistics and advice": ("", ["hotset.CacheInfo", "hotset.Stats", "hotset.Advice", "hotset._advice.Point", "hotset.advise"]),
    "All caches of a process": (
        "",
        ["hotset.caches", "hotset.stats", "hotset.clear_all", "hotset.enable_stats_file", "hotset.set_reload_threads", "hotset.__version__"],
    ),
    "Snapshots": ("", ["hotset.SnapshotError", "hotset.SnapshotWarning"]),
    "The second tier": ("[In front of Redis](../in-front-of-redis.md) and [In front of Memcached](../in-front-of-memcached.md) explain them.", ["hotset.tier2.Redis", "hotset.tier2.Memcached", "hotset.TieredCache", "hotset.tier2.Unavailable"]),
}
# The public modules of the second page, and what each is for.
MODULES = {
    "dashboard": "[See it live](../how-to/see-it-live.md) explains it.",
    "prometheus": "[Watch it in Grafana](../how-to/grafana.md) explains it.",
    "opentelemetry": "[Watch it in Grafana](../how-to/grafana.md) explains it.",
    "django": "[Django](../adapters/django.md) explains it.",
    "cachelib": "[cachelib, Flask-Caching, Flask-Session](../adapters/cachelib.md) explains it.",
    "hishel": "[hishel](../adapters/hishel.md) explains it.",
    "dogpile": "[dogpile.cache](../adapters/dogpile.md) explains it.",
    "langchain": "[LangChain](../adapters/langchain.md) explains it.",
    "aiocache": "[aiocache](../adapters/aiocache.md) explains it.",
    "requests_cache": "[requests-cache](../adapters/requests-cache.md) explains it.",
}
# Names that a module imports on first use, where autoapi finds them: it follows other imports only.
LAZY = {
    "hotset.advise": "hotset._advise.advice.advise",
    "hotset.TieredCache": "hotset.tier2._cache.TieredCache",
    "hotset.django.TieredCache": "hotset.django._tiered.TieredCache",
}
# The public modules of these, as signatures show them.
PUBLIC_MODULES = {found.rpartition(".")[0] + ".": name.rpartition(".")[0] + "." for name, found in LAZY.items()}
# Public modules without names to import.
WITHOUT_NAMES = {"pytest_plugin"}


def tree_of(package, module):
    """Returns the syntax tree of a module of the package, "" for the package itself."""
    file = package / f"{module}.py"
    return ast.parse((file if file.exists() else package / module / "__init__.py").read_text())


def exported(package, module):
    """Returns the names of a module: its `__all__`, or else its public classes and functions."""
    tree = tree_of(package, module)
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in tree.body if isinstance(node, defined) and not node.name.startswith("_")]


def modules(package):
    """Returns the names of the public modules of the package."""
    files = [path.stem for path in package.glob("*.py")] + [path.parent.name for path in package.glob("*/__init__.py")]
    return {name for name in files if not name.startswith("_")}


def public_names(package):
    """Returns the full names that the pages must describe."""
    names = {f"hotset.{name}" for name in exported(package, "")}
    for module in modules(package) - WITHOUT_NAMES:
        names |= {f"hotset.{module}.{name}" for name in exported(package, module)}
    # The mapping of the second tier is imported from two places.
    return names - {"hotset.tier2.TieredCache"}


def signature(package, name):
    """Returns a signature that autoapi does not find, or an empty string.

    `Cache` has its settings in `__new__`. Of overloads autoapi takes the first one, while the one
    with the most parameters has the settings.
    """
    module, last = name.rsplit(".", 1)
    found, overloaded = [], False
    for file in sorted(package.glob("_*.py")) if module == "hotset" else ():
        for node in ast.parse(file.read_text()).body:
            if getattr(node, "name", "") != last:
                continue
            if isinstance(node, ast.ClassDef):
                found += [method for method in node.body if getattr(method, "name", "") == "__new__"]
            elif isinstance(node, ast.FunctionDef):
                found.append(node)
                overloaded |= any(getattr(mark, "id", "") == "overload" for mark in node.decorator_list)
                if not overloaded:
                    return ""
    if not found:
        return ""
    longest = max(found, key=lambda node: len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs))
    returned = "" if longest.name == "__new__" else f" -> {ast.unparse(longest.returns)}"
    return f"({ast.unparse(longest.args).removeprefix('cls, ')}){returned}"


def described(package, name):
    """Returns the directive for one name."""
    name = LAZY.get(name, name)
    last = name.rsplit(".", 1)[1]
    if last in ("KEEP", "MISSING", "__version__"):
        kind = "data"
    elif last[0].isupper():
        kind = "exception" if last in ("SnapshotError", "SnapshotWarning", "Unavailable") else "class"
    else:
        kind = "function"
    members = ["   :members:", "   :inherited-members:"] if kind == "class" else []
    return ["```{eval-rst}", f".. autoapi{kind}:: {name}{signature(package, name)}", *members, "```", ""]


def pages(package):
    """Returns the pages of the Python API by their names."""
    lines = ["# Calls of the Python package", "", "Generated from the sources and stubs of the package. [The Python API](python.md) lists what all calls guarantee.", ""]
    for title, (text, names) in CALLS.items():
        lines += [f"## {title}", "", text, ""]
        for name in names:
            lines += described(package, name)
    listed = {name for _, names in CALLS.values() for name in names}
    more = ["# Modules of the Python package", "", "Each is imported by its name only, and needs what it adapts to.", ""]
    for module, text in MODULES.items():
        more += [f"## hotset.{module}", "", text, ""]
        for name in exported(package, module):
            more += described(package, f"hotset.{module}.{name}")
            listed.add(f"hotset.{module}.{name}")
    missing = public_names(package) - listed
    if missing:
        raise SystemExit(f"not on the pages of the Python API: {', '.join(sorted(missing))}")
    return {"reference/python-calls.md": "\n".join(lines), "reference/python-modules.md": "\n".join(more)}
