"""The rule table: how often each channel is asked, when it is given up, how it is undone, whose codes begin with what.

Data, not code: a JSON document with a version, taken whole or refused whole with every reason, and signed when it comes
from the fleet.  `device/rules.json` is the one that ships.  Opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from device.errors import ConfigError
from device.mqtt.wire import WireError, jws_decoded, jws_encoded
from device.store_forward.token import unb64
from device.types import CodeRule, Rules

TYP = "till-rules+jws"
BYTES_MAX = 64 * 1024
WAYS = ("qr", "code", "card")

Seconds = Annotated[int, msgspec.Meta(ge=1, le=172_800)]
Count = Annotated[int, msgspec.Meta(ge=1, le=3_650)]


class RuleTable(msgspec.Struct, frozen=True):
    """What the core takes of a table: `rules` by channel, or channel and way ("wechat", "wechat.code")."""

    version: int
    rules: tuple[tuple[str, Rules], ...]
    codes: tuple[CodeRule, ...]


class _Way(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pace_s: Annotated[tuple[tuple[Seconds, Seconds], ...], msgspec.Meta(min_length=1, max_length=20)]
    give_up_s: Seconds
    dead_after_s: Seconds
    refund_query_s: Seconds
    refund_parts_max: Count
    refund_days_max: Count
    place_s: Seconds = 8
    undo_after_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 0
    undo_every_s: Seconds = 2
    undo_moves_money: bool = False


Digits2 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{2}\Z")]


class _Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    wallet: Literal["wechat", "alipay", "unionpay", "ecny"]
    low: Digits2
    high: Digits2
    shortest: Annotated[int, msgspec.Meta(ge=16, le=40)]
    longest: Annotated[int, msgspec.Meta(ge=16, le=40)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    channels: dict[str, dict[str, Any]]
    codes: list[Any]


def parse(document: bytes, *, which: str = "rules") -> RuleTable:
    """The table in `document`, JSON.  ConfigError with every reason when anything is wrong."""
    if len(document) > BYTES_MAX:
        raise ConfigError([f"more than {BYTES_MAX} bytes"], which=which)
    try:
        table = msgspec.json.decode(document, type=_Table)
    except msgspec.DecodeError as why:
        raise ConfigError([str(why)], which=which) from None
    faults: list[str] = []
    rules = [(_name(channel, way), made) for channel, ways in table.channels.items() for way, raw in ways.items()
             if (made := _rules(channel, way, raw, faults)) is not None]
    codes = [code for n, raw in enumerate(table.codes, 1) if (code := _code(n, raw, faults)) is not None]
    if faults:
        raise ConfigError(faults, which=which)
    return RuleTable(table.version, tuple(sorted(rules)), tuple(codes))


def sealed(document: bytes, kid: str, sign: Callable[[bytes], bytes]) -> bytes:
    """`document` as the fleet sends it: a compact JWS of type `till-rules+jws`.  ConfigError for a table no box would take."""
    parse(document)
    return jws_encoded(TYP, document, kid, sign)


def opened(token: bytes, verifiers: Mapping[str, Callable[[bytes, bytes], bool]], *, which: str = "rules") -> RuleTable:
    """The table in a signed token.  ConfigError when no key of ours signed it, or when it cannot be taken."""
    try:
        document = jws_decoded(token, TYP, verifiers, "RULES", 2 * BYTES_MAX)
    except WireError as why:
        raise ConfigError([why.sentence], which=which) from None
    return parse(document, which=which)


def proven(token: bytes, *, which: str = "rules") -> RuleTable:
    """The table in a token whose signature was checked before, which the caller knows by a proof of its own.  ConfigError."""
    try:
        document = unb64(token.decode("ascii").split(".")[1])
    except (ValueError, IndexError):
        raise ConfigError(["it is no signed table"], which=which) from None
    return parse(document, which=which)


def _name(channel: str, way: str) -> str:
    return channel if way == "qr" else f"{channel}.{way}"


def _rules(channel: str, way: str, raw: Any, faults: list[str]) -> Rules | None:
    at = f"channels.{channel}.{way}"
    if way not in WAYS:
        faults.append(f"{at} is no way to pay; they are {', '.join(WAYS)}")
        return None
    try:
        told = msgspec.convert(raw, _Way)
    except msgspec.ValidationError as why:
        faults.append(f"{at}: {why}")
        return None
    if told.dead_after_s < told.give_up_s:
        faults.append(f"{at}.dead_after_s is less than its give_up_s: a live order is not dead")
    if [until for until, _ in told.pace_s] != sorted({until for until, _ in told.pace_s}):
        faults.append(f"{at}.pace_s: each step must end after the one before")
    return Rules(
        pace_ms=tuple((until * 1000, every * 1000) for until, every in told.pace_s), give_up_ms=told.give_up_s * 1000,
        place_ms=told.place_s * 1000, undo_after_ms=told.undo_after_s * 1000, undo_every_ms=told.undo_every_s * 1000,
        undo_moves_money=told.undo_moves_money, dead_after_ms=told.dead_after_s * 1000,
        refund_query_ms=told.refund_query_s * 1000, refund_parts_max=told.refund_parts_max,
        refund_days_max=told.refund_days_max)


def _code(n: int, raw: Any, faults: list[str]) -> CodeRule | None:
    try:
        told = msgspec.convert(raw, _Code)
    except msgspec.ValidationError as why:
        faults.append(f"codes, entry {n}: {why}")
        return None
    if told.low > told.high or told.shortest > told.longest:
        faults.append(f"codes, entry {n}: a range ends before it begins")
    return CodeRule(told.wallet, told.low, told.high, told.shortest, told.longest)
