"""Commands of the cloud and a box's answers: bytes in, values out, signatures handed in; and the one table of verbs.

Knows the documents, their bounds, and for each verb who may ask it and with which words; refuses to know how anything is done.
The session in a command is the nonce of the box's last `hello`: a command of an earlier connection is worth nothing, clock or not.
Other people's bytes raise `WireError`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from device.mqtt.wire import BoxId, Short, WireError, jws_decoded, jws_encoded

CMD_TYP: Final = "till-cmd+jws"
CMD_MAX_BYTES = 4 * 1024
ANSWER_MAX_BYTES = 48 * 1024             # of `cmd/res`; a longer answer is cut by whoever makes it
LOG_LINES_MAX = 500
REFUND_FEN_MAX = 1_000_000               # one command; more goes back at the counter, where a supervisor stands

CmdId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{8,64}\Z")]
By = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._@-]{1,64}:[a-z]{1,16}\Z")]     # who:role
Verifiers = Mapping[str, Callable[[bytes, bytes], bool]]
Sign = Callable[[bytes], bytes]

ROLES = ("cashier", "lead", "technician", "admin", "accountant")
AGAIN = frozenset({"session", "full", "busy"})   # refusals of the moment: the same command may be sent again after the next hello


class Verb(NamedTuple):
    """`kind`: a question changes nothing; `device` touches the box; `money` moves some.  `args` is a pattern of the whole text."""

    kind: Literal["question", "device", "money"]
    roles: frozenset[str]
    args: re.Pattern[str]
    says: str


def _roles(*names: str) -> frozenset[str]:
    assert set(names) <= set(ROLES), names
    return frozenset(names)


_ALL = _roles("lead", "technician", "admin", "accountant")
_TECHNICAL = _roles("technician", "admin")
_NOTHING = re.compile(r"")

# Everything that can be asked of a box from afar.  No verb marks an order as paid, and none takes a shell's line.
VERBS: dict[str, Verb] = {
    "status": Verb("question", _ALL, _NOTHING, "phase, health, what waits and how long"),
    "doctor": Verb("question", _TECHNICAL, _NOTHING, "what is wrong with the box, and what to do about it"),
    "logs": Verb("question", _TECHNICAL, re.compile(r"([1-9][0-9]{0,2})?"),
                 "the last 100 log lines, or as many as said, up to 500"),
    "journal verify": Verb("question", _roles("technician", "admin", "accountant"), _NOTHING,
                           "whether the box's own chain of records holds"),
    "forward now": Verb("device", _roles("lead", "technician", "admin"), _NOTHING, "send what waits now, without its pauses"),
    "print test": Verb("device", _roles("lead", "technician", "admin"), _NOTHING, "print a test slip"),
    "reboot": Verb("device", _TECHNICAL, _NOTHING, "restart the box when nobody stands at it, once"),
    "update": Verb("device", _roles("admin"), re.compile(
        r"[0-9a-f]{64} [1-9][0-9]{0,4} (now|quiet|[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9])|stop"),
        "MANIFEST BYTES WHEN: fetch that release, and start it when nobody is there; or stop"),
    "rotate key": Verb("device", _roles("admin"), _NOTHING, "begin a new record key under the old one"),
    "refund": Verb("money", _roles("accountant", "admin"), re.compile(r"[0-9A-HJKMNP-TV-Z]{20} [1-9][0-9]{0,6}"),
                   "ORDER_NO FEN: give so much of this box's own sale back to the wallets that paid it"),
    "let go": Verb("money", _roles("accountant", "admin"), re.compile(r"[0-9A-HJKMNP-TV-Z]{20}"),
                   "ORDER_NO: ask no more about a payment that its channel and its bills never decided; it counts as not known"),
}


class Cmd(msgspec.Struct, frozen=True):
    """One command.  `args` is one line whose words are parted by single blanks; `by` is `who:role`, as the cloud vouches for it."""

    box: BoxId
    id: CmdId
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    verb: Annotated[str, msgspec.Meta(max_length=32)]
    args: Annotated[str, msgspec.Meta(max_length=200)]
    by: By


class CmdAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of command `id`.  `ok` with `answer`, any JSON; or `error`, one sentence, and `name`, its word for programs."""

    box: BoxId
    id: CmdId
    ok: bool
    answer: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Short = ""
    name: Annotated[str, msgspec.Meta(max_length=32)] = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""


class Fault(NamedTuple):
    """Why a command is not done: a word for programs and a sentence for a person."""

    name: str
    sentence: str


def fault_of(verb: str, args: str, by: str) -> Fault | None:
    """What the table has against a command; None when `by` may ask this verb with these words.  Box and cloud both ask this."""
    known = VERBS.get(verb)
    if known is None:
        return Fault("verb", f"{verb[:32]!r} is no command; there are {', '.join(VERBS)}")
    role = by.rpartition(":")[2]
    if role not in known.roles:
        return Fault("role", f"{verb} is not for the role {role}; it is for {', '.join(sorted(known.roles))}")
    if not known.args.fullmatch(args):
        return Fault("args", f"{verb} does not take {args[:60]!r}: {known.says}")
    if verb == "refund" and int(args.split()[1]) > REFUND_FEN_MAX:
        return Fault("args", f"one command gives back at most {REFUND_FEN_MAX} fen")
    if verb == "logs" and int(args or 1) > LOG_LINES_MAX:
        return Fault("args", f"at most {LOG_LINES_MAX} lines")
    return None


def digest_of(verb: str, args: str) -> str:
    """What an id stands for: the same id with another digest is another command, and refused."""
    return hashlib.sha256(f"{verb}\n{args}".encode()).hexdigest()[:32]


def cmd_encoded(cmd: Cmd, kid: str, sign: Sign) -> bytes:
    return jws_encoded(CMD_TYP, msgspec.json.encode(cmd), kid, sign)


def cmd_decoded(raw: bytes, verifiers: Verifiers) -> Cmd:
    """Raises WireError: CMD_SHAPE, CMD_KEY, CMD_SIGNATURE, CMD_PAYLOAD."""
    return _payload(jws_decoded(raw, CMD_TYP, verifiers, "CMD", CMD_MAX_BYTES), Cmd, "CMD_PAYLOAD")


def answer_encoded(answer: CmdAnswer) -> bytes:
    told = msgspec.json.encode(answer)
    assert len(told) <= ANSWER_MAX_BYTES, len(told)
    return told


def answer_decoded(raw: bytes) -> CmdAnswer:
    """Raises WireError CMD_ANSWER.  Nobody signs an answer: the proof of a command is its record in the chain."""
    if len(raw) > ANSWER_MAX_BYTES:
        raise WireError("CMD_ANSWER", f"the answer has more than {ANSWER_MAX_BYTES} bytes")
    answer: CmdAnswer = _payload(raw, CmdAnswer, "CMD_ANSWER")
    if answer.ok == bool(answer.error) or answer.ok == isinstance(answer.answer, msgspec.UnsetType):
        raise WireError("CMD_ANSWER", "an answer is either well or says an error")
    return answer


def _payload(body: bytes, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError(name, f"the document says something unknown: {why}") from None
