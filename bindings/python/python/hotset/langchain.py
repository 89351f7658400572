"""LangChain's cache of the answers of language models, on hotset.

    langchain_core.globals.set_llm_cache(HotsetCache(max_entries=10_000, ttl=24 * 3600))
"""

from datetime import timedelta
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache

from hotset._adapters import DEFAULT_MAX_ENTRIES, engine_of
from hotset._mapping import Cache
from hotset._stats import Stats
from hotset._values import Copy, freezer, thaw

__all__ = ["HotsetCache"]


class HotsetCache(BaseCache):
    """Stores answers by pairs of a prompt and a model's settings, in memory.

    The methods for asyncio run in the event loop, without a thread.

    Args:
        max_entries: The capacity in answers; None for no bound.
        ttl: Seconds or a timedelta until an answer expires; None: it never expires.
        name: All caches of this name in the process are one, `hotset.shared("langchain:NAME")`.
            None: this cache is on its own.
        policy: Which answers stay, as of `hotset.Cache`.
        copy: "pickle": callers get copies; "none": they get the objects that were stored.
    """

    def __init__(
        self,
        *,
        max_entries: int | None = DEFAULT_MAX_ENTRIES,
        ttl: float | timedelta | None = None,
        name: str | None = None,
        policy: Any = "tinylfu",
        copy: Copy = "pickle",
    ) -> None:
        self._engine = engine_of("langchain", name, maxsize=max_entries, ttl=ttl, policy=policy)
        self._freeze = freezer(copy)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Returns the answer, or None if it is absent.

        Args:
            prompt: The prompt.
            llm_string: The settings of the model.
        """
        found: RETURN_VAL_TYPE | None = thaw(self._engine.get((prompt, llm_string)))
        return found

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Stores an answer.

        Args:
            prompt: The prompt.
            llm_string: The settings of the model.
            return_val: The answer.
        """
        self._engine[prompt, llm_string] = self._freeze(return_val)

    def clear(self, **kwargs: Any) -> None:
        """Removes all answers.

        Args:
            **kwargs: Ignored.
        """
        self._engine.clear()

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Behaves like `lookup`, for asyncio."""
        return self.lookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Behaves like `update`, for asyncio."""
        self.update(prompt, llm_string, return_val)

    async def aclear(self, **kwargs: Any) -> None:
        """Behaves like `clear`, for asyncio."""
        self.clear(**kwargs)

    @property
    def engine(self) -> Cache[tuple[str, str], Any]:
        """The `hotset.Cache` behind this cache."""
        return self._engine

    def stats(self) -> Stats:
        """Returns the statistics of this cache."""
        return self._engine.stats()
