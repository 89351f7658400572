"""Results of methods are freed with their instances, and share the capacity fairly."""

import asyncio
import copy
import gc
import pickle
import sys
import weakref

import pytest

import hotset

# Without the GIL, results go with later insertions, and cycles through them stay.
pytestmark = pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="needs the GIL")


class Result:
    def __init__(self, owner=None):
        self.owner = owner


class Plot:
    def __init__(self):
        self.others = []

    @hotset.cached
    def matrix(self, n):
        return Result()

    @property
    @hotset.cached
    def prop(self):
        return Result()

    @hotset.cached
    async def amatrix(self):
        return Result()

    @hotset.cached(ttl=60)
    def back(self, how):
        return {
            "object": lambda: Result(self),
            "list": lambda: [[self]],
            "bound": lambda: self.matrix,
            "closure": lambda: (lambda: self),
            "generator": lambda: (self for _ in "a"),
            "others": lambda: self.others,
        }[how]()

    @hotset.cached
    def argument(self, other):
        return 1


class Slotted:
    __slots__ = ("__weakref__", "x")

    @hotset.cached
    def matrix(self):
        return Result()


@pytest.mark.parametrize("name", ["matrix", "prop", "amatrix", "slots"])
def test_results_go_with_their_instance(name):
    uses = {
        "matrix": lambda plot: plot.matrix(1),
        "prop": lambda plot: plot.prop,
        "amatrix": lambda plot: asyncio.run(plot.amatrix()),
        "slots": lambda plot: plot.matrix(),
    }
    for _ in range(3):
        instance = Slotted() if name == "slots" else Plot()
        result = weakref.ref(uses[name](instance))
        assert result() is not None
        del instance
        gc.collect()
        assert result() is None


@pytest.mark.parametrize("how", ["object", "list", "bound", "closure", "generator"])
def test_a_cycle_through_a_result_is_collected(how):
    plots = []
    for _ in range(20):
        plot = Plot()
        assert plot.back(how) is plot.back(how)
        plots.append(weakref.ref(plot))
        del plot
    gc.collect()
    assert not any(plot() for plot in plots)
    assert Plot.back.cache_info().currsize == 0


def test_cycles_through_two_instances_and_through_arguments():
    one, two = Plot(), Plot()
    one.others.append(two), two.others.append(one)
    assert one.back("others") == [two] and two.back("others") == [one]
    one.argument(two), two.argument(one), one.argument(one)
    gone = [weakref.ref(one), weakref.ref(two)]
    one.others, two.others = [], []
    del one, two
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_plain_results_leave_no_trace_in_the_instance():
    class Plain:
        @hotset.cached
        def rows(self):
            return [{"n": n} for n in range(100)]

        @hotset.cached
        def me(self):
            return self

    plain = Plain()
    before = dict(vars(plain))
    plain.rows()
    assert vars(plain) == before
    plain.me()
    assert list(vars(plain)) == ["__hotset_results__"]
    for other in (copy.copy(plain), copy.deepcopy(plain), pickle.loads(pickle.dumps(Plot()))):
        assert getattr(other, "__hotset_results__", None) in (None, vars(plain)["__hotset_results__"])
    other = copy.copy(plain)
    assert other.me() is other and plain.me() is plain
    vars(plain).clear()  # what was kept there is gone, and that is all
    assert plain.me() is plain
    gone = [weakref.ref(plain), weakref.ref(other)]
    del plain, other, before
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_instance_drops_evicted_and_replaced_results():
    class Few:
        @hotset.cached(maxsize=2, policy="lru")
        def me(self, n):
            return [self, n]

    few = Few()
    for n in range(1000):
        few.me(n)
    few.me.cache_set([few, few], 999)
    Few.me.cache_invalidate(few, 998)
    gc.collect()
    assert few.me(999) == [few, few]
    Few.me.cache_clear()
    gc.collect()
    gone = weakref.ref(few)
    del few
    gc.collect()
    assert gone() is None


def test_cache_dropped_before_its_instances():
    def use():
        class Local:
            @hotset.cached
            def me(self, n):
                return self

        return Local()

    for _ in range(5):
        instance = use()
        assert instance.me(1) is instance
        gone = weakref.ref(instance)
        del instance
        gc.collect()
        assert gone() is None


def test_many_instances_do_not_share_one_bound():
    class Many:
        @hotset.cached
        def value(self, n):
            return object()

        @hotset.cached(maxsize=100)
        def bounded(self, n):
            return object()

    many = [Many() for _ in range(3000)]
    before = [(one.value(1), one.value(2)) for one in many]
    assert all(one.value(1) is a and one.value(2) is b for one, (a, b) in zip(many, before, strict=True))
    for one in many:
        one.bounded(1)
    assert Many.bounded.cache_info().currsize <= 100  # a bound of one's own is for all of them
    del many[10:], one
    gc.collect()
    assert Many.value.cache_info().currsize <= 20
    few = many[0]
    for n in range(100_000):
        few.value(n)
    assert Many.value.cache_info().currsize < 20_000  # one instance does not take all memory
