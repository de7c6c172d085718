"""What every channel's codec speaks: one request out, one reply in, and what that reply proves.

Pure.  Refuses to know any channel's rules: those are the `NAME_bytes.py` beside it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from device.types import Account

FOLLOWED_MAX = 64              # effects whose further question is out: one whose answer is lost is never read, and must not stay


class Request(msgspec.Struct, frozen=True):
    """One call: `path` with its query exactly as sent and signed; `body` empty for a GET.

    `path` is without host, but for a bill that lies elsewhere: then it is the whole URL.  `headers` beside the usual.
    """

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}

    def __repr__(self) -> str:           # its body may hold a payer's code, its headers our signature
        return f"Request({self.method} {self.path.partition('?')[0]}, {len(self.body)} bytes)"


class Reply(msgspec.Struct, frozen=True):
    """What came back, whole: header names in lower case, body undecoded."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:           # its body may name the payer
        return f"Reply({self.status}, {len(self.body)} bytes)"


class BillRow(msgspec.Struct, frozen=True):
    """One line of a channel's bill.  `kind` is `paid` or `refund`; amounts in fen, the fee signed as the bill has it.

    `at` is the channel's own time, RFC 3339 with offset; `refund_no` empty on a paid row; `failed` a refund that gave nothing back.
    """

    kind: str
    order_no: str
    amount_fen: int
    at: str
    channel_no: str = ""
    refund_no: str = ""
    fee_milli_fen: int = 0
    state: str = ""
    failed: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a reply proves.

    `word` is a value of Said or RefundWord; or `qr` with the text in `qr`; or `bill` with its `rows`; or `follow`: the
    reply names another request to make.  `health` is the channel's in one word: `ok slow lying gone key`.  `detail` is one
    sentence for a person, empty when nothing is wrong, and never holds a code, a key or a payer.  `key_refused`: the far end
    does not take our signature, so that another key of the same account may fare better.
    """

    word: str
    amount_fen: int = 0
    channel_no: str = ""
    detail: str = ""
    qr: str = ""
    health: str = "ok"
    wallet: str = ""                     # which wallet really paid, where an aggregator says so
    rows: tuple[BillRow, ...] = ()
    follow: Request | None = None
    payer: str = ""                      # what may be shown of the card that paid: "****1234"
    key_refused: bool = False


class OrderFields(Protocol):
    """What a codec reads of an intent to pay; frozen, so that a retry is the same bytes."""

    @property
    def order_no(self) -> str: ...
    @property
    def account(self) -> Account: ...
    @property
    def amount_fen(self) -> int: ...
    @property
    def description(self) -> str: ...
    @property
    def made_at(self) -> str: ...
    @property
    def expires_at(self) -> str: ...
    @property
    def way(self) -> str: ...
    @property
    def extras(self) -> tuple[tuple[str, str], ...]: ...


class RefundFields(Protocol):
    """Its twin for refunds."""

    @property
    def refund_no(self) -> str: ...
    @property
    def order_no(self) -> str: ...
    @property
    def account(self) -> Account: ...
    @property
    def amount_fen(self) -> int: ...
    @property
    def paid_fen(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def made_at(self) -> str: ...
    @property
    def channel_no(self) -> str: ...
    @property
    def way(self) -> str: ...
    @property
    def order_made_at(self) -> str: ...


def cut_bytes(text: str, bytes_max: int) -> str:
    """`text` cut to `bytes_max` bytes of UTF-8, never through a character."""
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


def plain(text: str) -> str:
    """A channel's own words as far as a person may see them: printable, and short."""
    return "".join(c for c in text[:80] if c.isprintable())


def without_code(body: bytes, code: str) -> bytes:
    """`body` without the payer's `code`, before any sentence is cut out of it: half a code is still one."""
    return body.replace(code.encode(), "…".encode()) if code else body


def lie(detail: str) -> Verdict:
    """A reply that proves nothing, and that the channel itself would not have sent."""
    return Verdict("unknown", detail=detail, health="lying")
