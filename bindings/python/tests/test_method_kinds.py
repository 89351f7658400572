"""What is a method under `cached`, which instance its results belong to, and what is bound."""

import asyncio
import copy
import dataclasses
import enum
import functools
import gc
import inspect
import pickle
import typing
import weakref

import pytest

import hotset

# --- What is a method.


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x

    def __hash__(self):
        return hash(self.x)

    def area(self):
        return [self.x]


@pytest.mark.parametrize(
    ("function", "argument"),
    [(str.upper, "tea"), (int.bit_length, 5), (tuple.__len__, (1, 2)), (Point.area, Point(1)), (list.copy, None)],
)
def test_a_function_of_a_finished_class_is_no_method(function, argument):
    if argument is None:
        # (What cannot be hashed is no argument, as with functools.)
        with pytest.raises(TypeError, match="unhashable"):
            hotset.cached(function)([1])
        return
    cached = hotset.cached(function)
    assert cached(argument) == function(argument)
    assert cached(argument) is cached(argument)
    if isinstance(argument, Point):
        assert cached(Point(1)) is cached(Point(1))


@hotset.cached
def fetch(key):
    return [key]


def test_a_name_in_a_class_body_makes_no_method():
    kept = fetch("a")

    @dataclasses.dataclass
    class Options:
        loader: typing.Callable = fetch
        same = fetch

    assert fetch("a") is kept
    assert Options().loader("b") is fetch("b")
    assert Options.same("b") is fetch("b")


def test_a_class_made_from_a_namespace_makes_no_method():
    made = type("Made", (), {"loader": fetch})
    assert made.loader("x") is fetch("x")


def test_a_method_by_any_name_and_decorator():
    def logged(function):
        def wrapper(*args):
            return function(*args)

        return wrapper

    class Shop:
        __hash__ = None

        @hotset.cached
        def one(this, n):
            return [n]

        @hotset.cached
        @logged
        def two(this, n):
            return [n]

        @functools.wraps(logged)
        def plain(self):
            return self

        three = hotset.cached(lambda this, n: [n])
        part = functools.partialmethod(one, 3)
        four = hotset.cached(functools.partialmethod(lambda this, n: [n], 4))

    one, two = Shop(), Shop()
    for name in ("one", "two", "three"):
        method = getattr(one, name)
        assert method(1) is method(1)
        assert method(1) is not getattr(two, name)(1)
    assert one.part() is one.one(3)
    assert one.four() is one.four() and one.four() == [4]
    gone = weakref.ref(one)
    del one, method
    assert gone() is None


def test_a_decorator_of_ones_own_in_a_class_body():
    def mine(function):
        return hotset.cached(ttl=60)(function)

    class Shop:
        __hash__ = None

        @mine
        def total(self, n):
            return [n]

        @mine
        async def atotal(self, n):
            return [n]

    shop = Shop()
    assert shop.total(1) is shop.total(1)

    async def twice():
        return await shop.atotal(1) is await shop.atotal(1)

    assert asyncio.run(twice())


def test_subclasses_share_a_method():
    class Base:
        @hotset.cached
        def name(self):
            return type(self).__name__

    class Derived(Base):
        pass

    assert (Base().name(), Derived().name()) == ("Base", "Derived")


# --- `key` on methods.


class Account:
    def __init__(self, owner):
        self.owner = owner

    @hotset.cached(key=lambda self, request: request["id"])
    def statement(self, request):
        return f"{request['id']} of {self.owner}"

    @hotset.cached(key=lambda self, request: request["id"])
    async def astatement(self, request):
        return f"{request['id']} of {self.owner}"

    @hotset.cached(key=lambda self: 1)
    @property
    def above(self):
        return self.owner

    @property
    @hotset.cached(key=lambda self: 1)
    def below(self):
        return self.owner

    @hotset.cached(key=lambda cls, request: request["id"])
    @classmethod
    def above_class(cls, request):
        return cls.__name__

    @classmethod
    @hotset.cached(key=lambda cls, request: request["id"])
    def below_class(cls, request):
        return cls.__name__

    @hotset.cached(method=False, key=lambda self, request: (self.owner, request["id"]))
    def shared(self, request):
        return [self.owner]


class Savings(Account):
    pass


def test_a_key_is_an_instances_own():
    ann, bob, request = Account("ann"), Account("bob"), {"id": 1}
    assert [ann.statement(request), bob.statement(request)] == ["1 of ann", "1 of bob"]
    assert (ann.above, bob.above, ann.below, bob.below) == ("ann", "bob", "ann", "bob")
    assert [Account.above_class(request), Savings.above_class(request)] == ["Account", "Savings"]
    assert [Account.below_class(request), Savings.below_class(request)] == ["Account", "Savings"]

    async def both():
        return [await ann.astatement(request), await bob.astatement(request)]

    assert asyncio.run(both()) == ["1 of ann", "1 of bob"]
    assert ann.statement.cache_invalidate(request)
    assert bob.statement.cache_contains(request)
    gone = weakref.ref(ann)
    del ann
    gc.collect()
    assert gone() is None


def test_method_false_with_a_key_shares_between_instances():
    request = {"id": 1}
    assert Account("ann").shared(request) is Account("ann").shared(request)
    assert Account("ann").shared(request) is not Account("bob").shared(request)


# --- Instances without weak references.


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    x: int

    @hotset.cached
    def value(self):
        return [self.x]

    @hotset.cached(ttl=60, typed=True)
    def plus(self, n):
        return [self.x + n]


class Named(typing.NamedTuple):
    x: int

    @hotset.cached
    def value(self):
        return [self.x]


class DerivedNamed(Named):
    __slots__ = ()


class Choice(enum.IntEnum):
    A = 1
    B = 2

    @hotset.cached
    def value_(self):
        return [self.value]

    @property
    @hotset.cached
    def prop(self):
        return [self.value]


class Plain(enum.Enum):
    A = 1

    @hotset.cached
    def value_(self):
        return [self.value]


class Number(int):
    @hotset.cached
    async def value(self):
        return [int(self)]


class Text(str):
    @hotset.cached
    def value(self):
        return [str(self)]


def test_instances_without_weakrefs_differ_by_equality():
    assert Frozen(1).value() is Frozen(1).value() and Frozen(2).value() == [2]
    assert Frozen(1).plus(1) is Frozen(1).plus(1)
    assert Frozen(1).plus(1) is not Frozen(1).plus(1.0)
    assert Named(1).value() is Named(1).value() and Named(2).value() == [2]
    assert DerivedNamed(1) == Named(1) and DerivedNamed(1).value() is not Named(1).value()
    assert Choice.A.value_() is Choice.A.value_() and Choice.B.value_() == [2]
    assert Choice.A.prop is Choice.A.prop and Choice.B.prop == [2]
    assert Plain.A.value_() is Plain.A.value_()
    assert asyncio.run(Number(3).value()) is asyncio.run(Number(3).value())
    text = Text("a")
    assert text.value() is text.value()
    assert Frozen(1).value.cache_invalidate()
    assert not Frozen(1).value.cache_contains()


def test_class_of_uncacheable_instances_is_an_error():
    with pytest.raises((TypeError, RuntimeError)) as caught:

        @dataclasses.dataclass(slots=True)
        class Mutable:
            x: int

            @hotset.cached
            def value(self):
                return self.x

    error = caught.value if isinstance(caught.value, TypeError) else caught.value.__cause__
    for remedy in ("weakref_slot=True", "frozen=True", "method=False"):
        assert remedy in str(error)

    @dataclasses.dataclass(slots=True, weakref_slot=True)
    class Remedied:
        x: int

        @hotset.cached
        def value(self):
            return [self.x]

    one = Remedied(1)
    assert one.value() is one.value()

    class Asked:
        __slots__ = ("x",)

        @hotset.cached(method=False)
        def value(self):
            return [self]

    asked = Asked()
    assert asked.value() is asked.value()


def test_a_mixin_without_data_is_for_its_subclasses():
    class Mixin:
        __slots__ = ()

        @hotset.cached
        def value(self):
            return [1]

    class Real(Mixin):
        pass

    real = Real()
    assert real.value() is real.value()
    with pytest.raises(TypeError, match="weak"):
        Mixin().value()


# --- Bound access.


class Shop:
    @hotset.cached
    def total(self, month=1):
        """Documented."""
        return [month]

    @hotset.cached
    async def atotal(self, month=1):
        """Documented."""
        return [month]

    @hotset.cached
    @classmethod
    def above(cls, n=1):
        return [n]

    @classmethod
    @hotset.cached
    def below(cls, n=1):
        return [n]

    @hotset.cached
    @classmethod
    async def aabove(cls, n=1):
        return [n]


def test_bound_access_acts_on_the_instance():
    shop, other = Shop(), Shop()
    before, others = shop.total(3), other.total(3)
    assert shop.total.cache_contains(3)
    assert shop.total.cache_invalidate(3)
    assert not shop.total.cache_invalidate(3)
    assert shop.total(3) is not before
    assert other.total(3) is others
    shop.total.cache_set("set", 4)
    assert shop.total(4) == "set" and other.total(4) == [4]
    assert shop.total.cache_refresh(4) == [4]
    assert Shop.total.cache_contains(shop, 4)
    assert shop.total.cache_info() == Shop.total.cache_info()


def test_bound_access_of_class_methods_acts_on_the_class():
    kept = Shop.above(1)
    assert Shop.above.cache_contains(1) and Shop().above.cache_contains(1)
    assert Shop.above.cache_invalidate(1)
    assert Shop.above(1) is not kept
    kept = Shop.below(1)
    assert Shop.below.cache_contains(Shop, 1)
    with pytest.raises(TypeError, match="comes first"):
        Shop.below.cache_invalidate(1)
    assert Shop.below.cache_invalidate(Shop, 1)


def test_a_missing_instance_is_an_error():
    for verb in ("cache_invalidate", "cache_contains", "cache_refresh"):
        for arguments in ((), (3,), (Point(1), 3)):
            with pytest.raises(TypeError, match="comes first"):
                getattr(Shop.total, verb)(*arguments)
    with pytest.raises(TypeError, match="comes first"):
        Shop.total.cache_set(1, 3)


def test_bound_access_of_coroutine_methods():
    shop, other = Shop(), Shop()

    async def use():
        before, others = await shop.atotal(3), await other.atotal(3)
        assert await shop.atotal(3) is before
        assert shop.atotal.cache_contains(3)
        assert shop.atotal.cache_invalidate(3)
        assert await shop.atotal(3) is not before
        assert await other.atotal(3) is others
        assert await shop.atotal.cache_refresh(3) == [3]
        assert Shop.atotal.cache_contains(shop, 3)
        assert await Shop.aabove(1) is await Shop().aabove(1)
        assert Shop.aabove.cache_contains(1)

    asyncio.run(use())
    for function in (Shop.atotal, shop.atotal, Shop.aabove):
        assert inspect.iscoroutinefunction(function)
        assert asyncio.iscoroutinefunction(function)
    with pytest.raises(TypeError, match="comes first"):
        Shop.atotal.cache_invalidate(3)
    gone = weakref.ref(shop)
    del shop, function
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", ["total", "atotal"])
def test_a_bound_method_is_one(name):
    shop = Shop()
    method = getattr(shop, name)
    assert method.__self__ is shop
    assert method == getattr(shop, name) and hash(method) == hash(getattr(shop, name))
    assert method != getattr(Shop(), name) and method != 3
    assert (method.__name__, method.__qualname__, method.__doc__) == (name, f"Shop.{name}", "Documented.")
    assert method.__module__ == __name__
    assert list(inspect.signature(method).parameters) == ["month"]
    assert list(inspect.signature(getattr(Shop, name)).parameters) == ["self", "month"]
    assert f"bound method Shop.{name} of" in repr(method)
    with pytest.raises(AttributeError):
        method.nothing
    weak = weakref.WeakMethod(method)
    assert weak() == method


def test_a_bound_method_takes_arguments_in_all_ways():
    class Ways:
        @hotset.cached
        def all(self, *args, **kwargs):
            return args, kwargs

    method = Ways().all
    assert method() == ((), {})
    assert method(1, 2, a=3) == ((1, 2), {"a": 3})
    assert method(*range(20), **{"b": 1}) == (tuple(range(20)), {"b": 1})
    assert list(map(method, [1, 2])) == [((1,), {}), ((2,), {})]
    assert functools.partial(method, 1)(2) == ((1, 2), {})


def test_bound_methods_are_pickled_by_name():
    shop = pickle.loads(pickle.dumps(Point(1)))
    assert shop.x == 1
    method = Pickled().method
    assert pickle.loads(pickle.dumps(method))(2) == 2
    assert copy.copy(method) == method


class Pickled:
    @hotset.cached
    def method(self, n):
        return n


# --- Spellings.


def test_invalidation_finds_every_spelling():
    @hotset.cached
    def f(x, y=2, *, z=3):
        return object()

    calls = [((1,), {}), ((), {"x": 1}), ((1, 2), {}), ((1,), {"y": 2}), ((1,), {"z": 3}), ((), {"x": 1, "y": 2, "z": 3})]
    for args, kwargs in calls:
        for other_args, other_kwargs in calls:
            kept = f(*args, **kwargs)
            assert f.cache_contains(*other_args, **other_kwargs)
            assert f.cache_invalidate(*other_args, **other_kwargs)
            assert f(*args, **kwargs) is not kept
            f.cache_clear()
    f(1)
    assert not f.cache_invalidate(2)
    assert not f.cache_invalidate(x=1, y=3)
    shop = Shop()
    shop.total(3)
    assert shop.total.cache_invalidate(month=3)
    shop.total()
    assert shop.total.cache_invalidate(1)


def test_pydantic_models_may_have_cached_methods():
    pydantic = pytest.importorskip("pydantic")
    for decorate in (hotset.lru_cache, hotset.cached):

        class Order(pydantic.BaseModel, frozen=True):
            amount: int = 3

            @decorate
            def total(self, factor):
                return self.amount * factor

        assert (Order().total(2), Order().model_dump(), Order()) == (6, {"amount": 3}, Order())
