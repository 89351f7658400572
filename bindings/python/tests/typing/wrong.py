"""Errors that type checkers must report: mypy reports an ignore that is not needed."""

import hotset


@hotset.cached(maxsize=10)
def function(x: int) -> str:
    return str(x)


def wrong() -> None:
    function("a")  # type: ignore[arg-type]
    function.cache_invalidate("a")  # type: ignore[arg-type]
    function.cache_set(1, 1)  # type: ignore[arg-type]
    hotset.cached(policy="arc")  # type: ignore[call-overload]
    cache: hotset.Cache[str, int] = hotset.Cache(10)
    hotset.cached(codec="msgpack")  # type: ignore[call-overload]
    hotset.cached(snapshot=3)  # type: ignore[call-overload]
    function.cache_save(3)  # type: ignore[arg-type]
    cache.save("a", codec=len)  # type: ignore[arg-type]
    cache.load("a", schema=1.5)  # type: ignore[arg-type]
    cache["a"] = "b"  # type: ignore[assignment]
    cache[1]  # type: ignore[index]
    cache.get_or_load("a", str)  # type: ignore[arg-type]
    hotset.cached(cache=cache, ttl=5)  # type: ignore[call-overload]
    hotset.cached(cache=cache)(len).cache_resize(5)  # type: ignore[attr-defined]
