"""The core's actions as commands of the server, and the server's replies as the core takes them."""

import hashlib
from typing import Any, Final, final

from hotset import _hotset
from hotset.tier2._errors import Failed
from hotset.tier2._resp import Command, ServerError, encode, encode_many

Operation = Any
"""A `_hotset.Operation`."""

_core: Any = _hotset
_Tier2: Any = _core.Tier2
_Operation: Any = _core.Operation

GET: Final[int] = _Operation.GET
ACQUIRE: Final[int] = _Operation.ACQUIRE
SWAP: Final[int] = _Operation.SWAP
FILL: Final[int] = _Operation.FILL
PUT: Final[int] = _Operation.PUT
RELEASE: Final[int] = _Operation.RELEASE
REMOVE: Final[int] = _Operation.REMOVE
EXPIRE: Final[int] = _Operation.EXPIRE
TOUCH: Final[int] = _Operation.TOUCH
BUMP: Final[int] = _Operation.BUMP
READ_GENERATION: Final[int] = _Operation.READ_GENERATION
CLAIM: Final[int] = _Operation.CLAIM
FENCE: Final[int] = _Operation.FENCE
DIRECT: Final[int] = _Operation.DIRECT
NETWORK: Final = frozenset(
    (GET, ACQUIRE, SWAP, FILL, PUT, RELEASE, REMOVE, EXPIRE, TOUCH, BUMP, READ_GENERATION, CLAIM, FENCE, DIRECT)
)
UNCONDITIONAL: Final = frozenset((PUT,))
"""Actions that the server must not execute late: the core records the connection of each."""


@final
class Script:
    """A script of one key, called by its digest once the server has it."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest().encode()

    def command(self, key: bytes, *arguments: bytes | int, whole: bool = False) -> Command:
        """Returns the command that runs the script.

        Args:
            key: The key.
            *arguments: The arguments of the script.
            whole: Whether to send the script itself, instead of its digest, which the server may
                lack.
        """
        if whole:
            return (b"EVAL", self._text, 1, key, *arguments)
        return (b"EVALSHA", self._digest, 1, key, *arguments)


# The first 24 bytes are compared: the head of a frame, which no two frames share.
SWAP_SCRIPT: Final = Script(
    "if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[1] then return 0 end redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1"
)
RELEASE_SCRIPT: Final = Script("if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[1] then return 0 end redis.call('UNLINK',KEYS[1]) return 1")
# The removal of an absent key is not announced, so the key is created first. (If there is no memory
# for that, the key is absent anyway.)
_ANNOUNCE: Final = "if redis.call('UNLINK',KEYS[1])==0 then redis.pcall('SET',KEYS[1],'') redis.call('UNLINK',KEYS[1]) end return 1"
REMOVE_SCRIPT: Final = Script(_ANNOUNCE)
_IS_VALUE: Final = "redis.call('GETRANGE',KEYS[1],0,3)=='\\241h\\1\\1' and redis.call('STRLEN',KEYS[1])>=54"
_SET_HEAD: Final = "redis.call('SETRANGE',KEYS[1],4,ARGV[1]) redis.call('SETRANGE',KEYS[1],24,ARGV[2])"
EXPIRE_SCRIPT: Final = Script(f"if {_IS_VALUE} then {_SET_HEAD} return 1 end {_ANNOUNCE}")
TOUCH_SCRIPT: Final = Script(
    f"if redis.call('GETRANGE',KEYS[1],0,23)~=ARGV[4] then return 0 end {_SET_HEAD} redis.call('PEXPIRE',KEYS[1],ARGV[3]) return 1"
)
PUT_SCRIPT: Final = Script(
    "local t=redis.call('TIME') if t[1]*1000+math.floor(t[2]/1000)>tonumber(ARGV[3]) then return 0 end "
    "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1"
)


@final
class Abilities:
    """What a server allows this user, as far as refused commands have shown. Per node."""

    __slots__ = ("acquires_in_one", "meta", "scripts", "transactions")

    def __init__(self, version: tuple[int, ...]) -> None:
        # Whether the server has SET with NX and GET together.
        self.acquires_in_one = version >= (7,) or not version
        self.scripts = True
        self.transactions = True
        # Of memcached: whether it has meta commands.
        self.meta = False

    def note(self, greeting: Any) -> None:
        """Records the version that a server reported on a new connection.

        Args:
            greeting: What it reported.
        """
        self.meta = getattr(greeting, "has_meta", False)
        if greeting.version and greeting.version < (7,):
            self.acquires_in_one = False


_get: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"


def get_command(key: bytes) -> bytes:
    """Returns an encoded GET.

    Args:
        key: The key.
    """
    return _get % (len(key), key)


def commands_of(action: int, op: Operation, value: bytes | None, abilities: Abilities, *, whole: bool = False) -> list[Command]:
    """Returns the commands of a network action; each has one reply.

    Args:
        action: The action.
        op: The operation, which has the operands.
        value: The whole new frame of FILL and PUT.
        abilities: What the server allows.
        whole: Whether to send scripts whole, because the server did not have one by its digest.
    """
    target: bytes = op.target
    if action == GET:
        return [(b"GET", target)]
    if action == ACQUIRE:
        if abilities.acquires_in_one:
            return [(b"SET", target, op.frame, b"NX", b"GET", b"PX", op.px)]
        return [(b"SET", target, op.frame, b"NX", b"PX", op.px), (b"GET", target)]
    if action == SWAP:
        return [SWAP_SCRIPT.command(target, op.expected, op.frame, op.px, whole=whole)]
    if action == FILL:
        return [SWAP_SCRIPT.command(target, op.expected, value or b"", op.px, whole=whole)]
    if action == PUT:
        if op.not_after:
            return [PUT_SCRIPT.command(target, value or b"", op.px, op.not_after, whole=whole)]
        return [(b"SET", target, value or b"", b"PX", op.px)]
    if action == RELEASE:
        return [RELEASE_SCRIPT.command(target, op.expected, whole=whole)]
    if action == REMOVE or (action == EXPIRE and not abilities.scripts):
        return _removal(target, abilities, whole)
    if action == EXPIRE:
        return [EXPIRE_SCRIPT.command(target, op.frame, op.soft_end.to_bytes(8, "little"), whole=whole)]
    if action == TOUCH:
        return [TOUCH_SCRIPT.command(target, op.frame, op.soft_end.to_bytes(8, "little"), op.px, op.expected, whole=whole)]
    if action == BUMP:
        return [(b"SET", target, op.frame)]
    if action == READ_GENERATION:
        if abilities.acquires_in_one:
            return [(b"SET", target, op.frame, b"NX", b"GET")]
        return [(b"SET", target, op.frame, b"NX"), (b"GET", target)]
    if action == CLAIM:
        return [(b"SET", target, op.frame, b"NX", b"PX", op.px), (b"GET", op.key)]
    if action == FENCE:
        return [(b"CLIENT", b"KILL", b"ID", op.connection)]
    raise AssertionError(f"no command for the action {action}")


def _removal(target: bytes, abilities: Abilities, whole: bool) -> list[Command]:
    if abilities.scripts:
        return [REMOVE_SCRIPT.command(target, whole=whole)]
    if abilities.transactions:
        return [(b"MULTI",), (b"SET", target, b""), (b"UNLINK", target), (b"EXEC",)]
    return [(b"UNLINK", target)]


def pack(commands: list[Command]) -> bytes:
    """Returns the encoded commands, to be sent together.

    Args:
        commands: The commands.
    """
    return encode(*commands[0]) if len(commands) == 1 else encode_many(commands)


_KINDS: Final[dict[str, int]] = {
    "OOM": _Tier2.OOM,
    "READONLY": _Tier2.READONLY,
    "NOSCRIPT": _Tier2.NOSCRIPT,
    "NOPERM": _Tier2.NOPERM,
    "NOAUTH": _Tier2.NOPERM,
    "LOADING": _Tier2.LOADING,
    "MASTERDOWN": _Tier2.LOADING,
    "CLUSTERDOWN": _Tier2.CLUSTERDOWN,
    "MOVED": _Tier2.MOVED,
    "ASK": _Tier2.MOVED,
}


def kind_of_error(error: ServerError) -> int:
    """Returns the core's kind of an error reply.

    Args:
        error: The error reply.
    """
    kind = _KINDS.get(error.code)
    if kind is None:
        # Before Redis 7, the error of a command inside a script is quoted.
        text = str(error)
        if "can't run this command" in text:
            # The user may run the script, but not a command inside it.
            return int(_Tier2.NOPERM)
        kind = next((number for code, number in _KINDS.items() if f"-{code} " in text or f": {code} " in text), _Tier2.OTHER)
    return kind


def kind_of_failure(failed: Failed) -> int:
    """Returns the core's kind of a request without a whole reply.

    Args:
        failed: The failure.
    """
    if failed.sent:
        return int(_Tier2.TIMEOUT)
    if failed.kind == "loading":
        return int(_Tier2.LOADING)
    if failed.kind == "auth":
        return int(_Tier2.NOPERM)
    return int(_Tier2.NOT_SENT if failed.kind == "closed" else _Tier2.REFUSED)


def first_error(replies: list[Any]) -> ServerError | None:
    """Returns the first error among replies; None without one.

    Args:
        replies: The replies.
    """
    for reply in replies:
        if isinstance(reply, ServerError):
            return reply
    return None


def note_refusal(action: int, error: ServerError, abilities: Abilities) -> bool:
    """Records that the server refuses a way to perform an action.

    Args:
        action: The action of the core.
        error: The error reply.
        abilities: What the server allows.

    Returns:
        Whether there is another way, so that the same action must be sent again.
    """
    refused = kind_of_error(error) == _Tier2.NOPERM or "unknown command" in str(error).lower()
    if not refused or action not in (REMOVE, EXPIRE):
        return False
    if abilities.scripts:
        abilities.scripts = False
        return True
    if abilities.transactions:
        abilities.transactions = False
        return True
    return False


def report(action: int, op: Operation, now: int, epoch: int, replies: list[Any], abilities: Abilities) -> int:
    """Passes the replies to an action's commands to the core.

    Args:
        action: The action.
        op: The operation.
        now: The current time.
        epoch: The epoch of the connection.
        replies: The replies.
        abilities: What the server allows.

    Returns:
        The next action.
    """
    error = first_error(replies)
    if error is not None and not (action == FENCE and error.code == "ERR" and "No such client" in str(error)):
        return int(op.failed(now, kind_of_error(error)))
    if action == GET:
        return int(op.reply(now, epoch, replies[0]))
    if action in (ACQUIRE, READ_GENERATION):
        if abilities.acquires_in_one:
            return int(op.reply(now, epoch, replies[0]))
        won = replies[0] is not None
        if not won and replies[1] is None:
            # The value was removed between the two commands.
            return int(op.failed(now, _Tier2.OTHER))
        return int(op.reply(now, epoch, None if won else replies[1]))
    if action == CLAIM:
        return int(op.reply_claim(now, epoch, replies[0] is not None, replies[1]))
    if action in (SWAP, FILL, RELEASE, TOUCH):
        return int(op.reply(now, epoch, replies[0] == 1))
    if action == PUT:
        return int(op.reply(now, epoch, replies[0] == "OK" or replies[0] == 1))
    return int(op.reply(now, epoch, True))
