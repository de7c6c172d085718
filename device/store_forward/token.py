"""The record token: its bytes, its names, its limits.  Knows no key, no file and no journal; signing is done elsewhere.

A token is a JWS compact serialisation (RFC 7515): three base64url parts joined by dots.  The signature covers the bytes
as they stand, so a token is kept and sent byte for byte, and nothing here ever encodes one a second time.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec

TOKEN_BYTES_MAX = 16 * 1024
SIGNATURE_BYTES = 64                     # r, then s, 32 bytes each: not DER
AMOUNT_FEN_MAX = 2**53 - 1               # what every JSON reader keeps exactly

CLOCK_WORDS = ("unset", "restored", "ntp", "rtc", "anchored")

TOKEN_ERRORS: dict[str, str] = {
    "TOO_LONG": "A line is longer than 16 KiB, the limit of a token.",
    "NOT_A_TOKEN": "A line is not three base64url parts joined by dots, or its signature is not 64 bytes long.",
    "BAD_HEADER": "The protected header is not exactly the one a record has: its keys, their order, every byte.",
    "BAD_PAYLOAD": "The payload is not a JSON object with the values a record has.",
    "KEY_TWICE": "An object in the payload names a key twice.",
    "KEY_ORDER": "The keys of the payload are not the twelve of a record, in their order.",
    "AMOUNT_NOT_INTEGER": "An amount in fen is not a whole number, or too large to be kept exactly by every reader.",
}


class TokenError(ValueError):
    """A token that cannot be read.  `name` is a key of `TOKEN_ERRORS`, `sentence` says what and where."""

    def __init__(self, name: str, sentence: str) -> None:
        assert name in TOKEN_ERRORS, name
        super().__init__(f"{name}: {sentence}")
        self.name, self.sentence = name, sentence


class Sum(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Totals of a journal after a record: fen sold, fen given back, sales and refunds together."""

    sales_fen: int = 0
    refunds_fen: int = 0
    count: int = 0


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a record says.  The fields stand in the order of the keys on the wire; `body` is JSON as written."""

    v: int
    box: str
    jid: str
    seq: int
    prev: str
    at: str
    clk: str
    boot: str
    mono_ms: int
    kind: str
    sum: Sum
    body: msgspec.Raw


class Parsed(NamedTuple):
    """One token taken apart.  `signing_input` with `signature` is what a key checks; `signing_input` names the content."""

    kid: str
    payload: Payload
    signing_input: bytes
    signature: bytes


def b64(data: bytes) -> str:
    """`data` as base64url without padding (RFC 7515, appendix C)."""
    return binascii.b2a_base64(data, newline=False).translate(_PLAIN_TO_URL).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """The bytes of base64url `text`.  ValueError for padding, strange characters, or a spelling that `b64` never gives."""
    try:
        return _unb64(text.encode("ascii"))
    except UnicodeEncodeError:
        raise ValueError("not base64url without padding") from None


def _unb64(raw: bytes) -> bytes:
    over = len(raw) % 4
    if over == 1:
        raise ValueError("not base64url without padding")
    if over and raw[-1] not in _LAST[over]:      # the last character may carry bits that no byte needs
        raise ValueError("base64url with stray bits at its end" if raw[-1] in _ALPHABET else "not base64url without padding")
    try:
        # As a JSON string of bytes: twice as fast as binascii, and as strict once there is no escape in it.
        return _base64_bytes(b'"%b%b"' % (raw.translate(_URL_TO_PLAIN), _PADDING[over]))
    except msgspec.DecodeError:
        raise ValueError("not base64url without padding") from None


def header(kid: str) -> bytes:
    """The protected header of a record under key `kid`."""
    assert _DIGEST.fullmatch(kid), kid
    return b'{"alg":"ES256","kid":"' + kid.encode("ascii") + b'","typ":"till+jws"}'


def signing_input(kid: str, payload: bytes) -> bytes:
    """The ASCII bytes that the signature covers."""
    return f"{b64(header(kid))}.{b64(payload)}".encode("ascii")


def seal(signing_input: bytes, raw_sig: bytes) -> str:
    """The finished token.  TokenError TOO_LONG above the limit: such a record must be refused before it is due."""
    assert len(raw_sig) == SIGNATURE_BYTES, len(raw_sig)
    token = f"{signing_input.decode('ascii')}.{b64(raw_sig)}"
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenError("TOO_LONG", f"The token would take {len(token)} bytes of at most {TOKEN_BYTES_MAX}.")
    return token


def digest(token: str) -> str:
    """What the next record's `prev` says of `token`: base64url SHA-256 of its ASCII bytes."""
    return b64(hashlib.sha256(token.encode("ascii")).digest())


def thumbprint(jwk: dict[str, Any]) -> str:
    """Name of a public EC key (RFC 7638): only crv, kty, x and y count.  ValueError for another kind of key."""
    if jwk.get("kty") != "EC" or not all(isinstance(jwk.get(k), str) for k in ("crv", "x", "y")):
        raise ValueError("not an EC key: kty, crv, x and y are needed")
    return b64(hashlib.sha256(msgspec.json.encode({k: jwk[k] for k in ("crv", "kty", "x", "y")})).digest())


def encode_payload(payload: Payload) -> bytes:
    """`payload` as the JSON that is signed, keys in the order of the struct."""
    return _encoded(payload)


def parse(token: str) -> Parsed:
    """Take `token` apart and check everything that needs no key.  TokenError, named, for the first fault."""
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenError("TOO_LONG", f"The line has more than {TOKEN_BYTES_MAX} characters.")
    if not token.isascii():
        raise TokenError("NOT_A_TOKEN", "A part is not base64url without padding.")
    spelled = token.encode("ascii")
    parts = spelled.split(b".")
    if len(parts) != 3:
        raise TokenError("NOT_A_TOKEN", f"The line has {len(parts)} parts between dots, a token has 3.")
    head, body, signed = parts
    try:
        kid = _kid(head) if len(head) < 200 else _kid.__wrapped__(head)          # what is kept is short
        payload_bytes, signature = _unb64(body), _unb64(signed)
    except ValueError as error:
        raise TokenError("NOT_A_TOKEN", f"A part is {error}.") from None
    if len(signature) != SIGNATURE_BYTES:
        raise TokenError("NOT_A_TOKEN", f"The signature has {len(signature)} bytes, ES256 has {SIGNATURE_BYTES}.")
    if kid is None:
        raise TokenError("BAD_HEADER", 'The header is not exactly {"alg":"ES256","kid":...,"typ":"till+jws"}.')
    return Parsed(kid, _plain(payload_bytes) or _payload(payload_bytes), spelled[:-1 - len(signed)], signature)


def tokens_found(facts: bytes) -> list[tuple[int, str]]:
    """Every record token that stands in `facts`, whatever they are encoded in, as (seq, token) in the order found.

    A token begins with the base64url of its pinned header, which nothing else in a journal does.
    """
    found = []
    for match in _token_in_bytes().finditer(facts):
        token = match[0].decode("ascii")
        found.append((parse(token).payload.seq, token))
    return found


@functools.lru_cache(maxsize=4096)               # the same few headers come again and again
def _kid(head: bytes) -> str | None:
    """The key that a header names, None for another header than ours.  ValueError when it is not base64url."""
    match = _HEADER.fullmatch(_unb64(head))
    return match[1].decode("ascii") if match else None


def _plain(data: bytes) -> Payload | None:
    """The payload when its bytes are written as a box writes them and every bound holds; None says nothing: `_payload` decides.

    The members before the body are one pattern.  The body is written anew and compared: a key that stands twice, or an odd
    spelling, would be lost or changed and cannot hide.  A sale's body is read by its shape, which takes half the time.
    """
    head = _plain_head().match(data)
    if head is None:
        return None
    try:
        payload = _decoded(data)
        body = data[head.end() - 1:-1]
        return payload if payload.kind == "sale" and _sale_again(body) == body or _again(body) == body else None
    except (ValueError, RecursionError):
        return None


def _again(body: bytes) -> bytes:
    return b"" if _FEN_UNUSUAL.search(body) else _encoded(msgspec.json.decode(body))


def _sale_again(body: bytes) -> bytes:
    """The same for a sale of the usual shape; b"" for any other."""
    try:
        return _encoded(_sale()(body))
    except msgspec.ValidationError:
        return b""


@functools.cache                                 # a box has nothing to take apart at a start
def _sale() -> Callable[[bytes], msgspec.Struct]:
    fen = Annotated[int, msgspec.Meta(ge=-AMOUNT_FEN_MAX, le=AMOUNT_FEN_MAX)]

    def shape(name: str, must: dict[str, Any], may: dict[str, Any]) -> Any:
        fields: list[Any] = [*must.items(), *((field, kind | msgspec.UnsetType, msgspec.UNSET) for field, kind in may.items())]
        return msgspec.defstruct(name, fields, forbid_unknown_fields=True, gc=False)

    line: Any = shape("Line", {"gtin": str, "name": str, "qty_milli": int, "price_fen": fen, "amount_fen": fen}, {})
    tender: Any = shape("Tender", {"method": str, "amount_fen": fen},
                   {"order_no": str, "channel_no": str, "wallet": str, "payer": str, "account": str, "way": str})
    sale: Any = shape("Sale", {"order_no": str, "amount_fen": fen, "cashier": str, "lines": list[line], "tenders": list[tender]},
                 {"price_lists": list[str], "drawer": str, "late": bool})
    return msgspec.json.Decoder(sale).decode


def _payload(data: bytes) -> Payload:
    import json  # which tells a key named twice; a start has nothing to take apart

    try:
        tree = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise TokenError("BAD_PAYLOAD", "The payload is nested too deeply.") from None
    except TokenError:
        raise
    except ValueError:
        raise TokenError("BAD_PAYLOAD", "The payload is not JSON in UTF-8.") from None
    if not isinstance(tree, dict):
        raise TokenError("BAD_PAYLOAD", "The payload is not a JSON object.")
    if tuple(tree) != _KEYS:
        raise TokenError("KEY_ORDER", f"The keys are not {' '.join(_KEYS)}, in this order.")
    if isinstance(tree["sum"], dict) and tuple(tree["sum"]) != _SUM_KEYS:
        raise TokenError("KEY_ORDER", f"The keys of sum are not {' '.join(_SUM_KEYS)}, in this order.")
    try:
        payload = _decoded(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TokenError("BAD_PAYLOAD", f"The payload does not hold a record: {error}.") from None
    _check(payload, tree)
    return payload


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise TokenError("KEY_TWICE", "A key stands twice in one object, and readers would disagree on its value.")
    for key, value in pairs:
        if key.endswith("_fen") and (type(value) is not int or abs(value) > AMOUNT_FEN_MAX):
            raise TokenError("AMOUNT_NOT_INTEGER", f"The amount {key[:40]!r} is not a whole number of fen.")
    return made


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _check(payload: Payload, tree: dict[str, Any]) -> None:
    """The bounds of every field that msgspec's types do not say."""
    wrong = [name for name, ok in (
        ("v", payload.v == 1), ("box", _bounds()["box"].fullmatch(payload.box)), ("jid", _bounds()["jid"].fullmatch(payload.jid)),
        ("seq", 1 <= payload.seq <= AMOUNT_FEN_MAX), ("prev", _DIGEST.fullmatch(payload.prev)),
        ("at", _bounds()["at"].fullmatch(payload.at)), ("clk", payload.clk in CLOCK_WORDS), ("boot", 1 <= len(payload.boot) <= 64),
        ("mono_ms", 0 <= payload.mono_ms <= AMOUNT_FEN_MAX), ("kind", _bounds()["kind"].fullmatch(payload.kind)),
        ("sum", min(payload.sum.sales_fen, payload.sum.refunds_fen, payload.sum.count) >= 0),
        ("body", isinstance(tree["body"], dict)),
    ) if not ok]
    if wrong:
        raise TokenError("BAD_PAYLOAD", f"The value of {wrong[0]} is not one that a record can have.")


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PADDING = {0: b"", 2: b"==", 3: b"="}
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}                               # by what is over a group of four: no stray bits
# base64url as base64 and back; what base64url does not know, or JSON reads as an escape, becomes what base64 does not know.
_URL_TO_PLAIN, _PLAIN_TO_URL = bytes.maketrans(b"-_+/=\\", b"+/!!!!"), bytes.maketrans(b"+/", b"-_")
_FEN_UNUSUAL = re.compile(rb'_fen":(?!-?[0-9]{1,15}[,}])')                 # any amount but a whole number of no more than 15 digits
_DIGEST = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)     # 32 bytes, no stray bits
_AT = (r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,9})?"
       r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)")
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])","typ":"till\+jws"\}')


@functools.cache                                 # these patterns and those below: a start has nothing to take apart
def _plain_head() -> re.Pattern[bytes]:
    return re.compile((
        r'\{"v":1,"box":"[a-z0-9-]{1,32}","jid":"[A-Za-z0-9_-]{21}[AQgw]","seq":[1-9][0-9]{0,14},'
        r'"prev":"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]","at":"' + _AT.replace(r"\d", "[0-9]") +
        r'","clk":"(?:' + "|".join(CLOCK_WORDS) + r')","boot":"[!#-\[\]-~]{1,64}","mono_ms":(?:0|[1-9][0-9]{0,14}),'
        r'"kind":"[a-z][a-z0-9_]{0,39}","sum":\{"sales_fen":(?:0|[1-9][0-9]{0,14}),"refunds_fen":(?:0|[1-9][0-9]{0,14}),'
        r'"count":(?:0|[1-9][0-9]{0,14})\},"body":\{').encode("ascii"))


@functools.cache
def _bounds() -> dict[str, re.Pattern[str]]:
    return {name: re.compile(pattern, re.ASCII) for name, pattern in (
        ("box", r"[a-z0-9-]{1,32}"), ("jid", r"[A-Za-z0-9_-]{21}[AQgw]"),              # 16 bytes, no stray bits
        ("at", _AT), ("kind", r"[a-z][a-z0-9_]{0,39}"))}


@functools.cache
def _token_in_bytes() -> re.Pattern[bytes]:
    return re.compile(rb"eyJhbGciOiJFUzI1NiIsImtpZCI6I[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")


_KEYS = Payload.__struct_fields__
_SUM_KEYS = Sum.__struct_fields__
_encoded = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder(Payload).decode
_base64_bytes = msgspec.json.Decoder(bytes).decode

EMPTY_DIGEST = digest("")
