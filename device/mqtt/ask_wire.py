"""Questions of a box and the cloud's answers: bytes in, values out, signatures handed in.

Knows two questions: `sale_by_order`, another box's sale with a lease to give its money back, and `renew`, a fresh certificate for
the box's own line.  Refuses to know who may ask and what is left of a sale.  Other people's bytes raise `WireError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from device.mqtt.wire import BoxId, Count, Short, WireError, jws_decoded, jws_encoded

ASK_TYP: Final = "till-ask+jws"
ANSWER_TYP: Final = "till-answer+jws"
ASK_MAX_BYTES = 4 * 1024
ANSWER_MAX_BYTES = 32 * 1024             # a sale's record of 16 KiB, once more in base64
LEASE_MS = 600_000

OrderNo = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-HJKMNP-TV-Z]{20}\Z")]
NoOrder = Annotated[str, msgspec.Meta(pattern=r"\A([0-9A-HJKMNP-TV-Z]{20})?\Z")]
Csr = Annotated[str, msgspec.Meta(pattern=r"\A([A-Za-z0-9_-]{64,1366})?\Z")]         # DER in base64url
AskId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9-]{1,64}\Z")]
Verifiers = Mapping[str, Callable[[bytes, bytes], bool]]
Sign = Callable[[bytes], bytes]


class Ask(msgspec.Struct, frozen=True):
    """`id` is fresh for each question and comes back in its answer; the same id asked again is the same question.

    `order_no` with `sale_by_order`, `csr` with `renew`, and only there.
    """

    box: BoxId
    id: AskId
    verb: Literal["sale_by_order", "renew"]
    order_no: NoOrder = ""
    csr: Csr = ""


class Left(msgspec.Struct, frozen=True):
    """What nobody has given back of one paid order."""

    order_no: OrderNo
    fen: Count


class Lease(msgspec.Struct, frozen=True):
    """For `ms` from the question on, this box and no other may give back `left`; `id` stands in each record of it."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
    ms: Annotated[int, msgspec.Meta(ge=1, le=LEASE_MS)]
    left: Annotated[tuple[Left, ...], msgspec.Meta(min_length=1, max_length=200)]


class Answer(msgspec.Struct, frozen=True):
    """`sale` the body of the sale's record as its box signed it, `at` that record's time; `why` when there is no lease.

    To `renew`: `chain`, certificates in PEM, the box's own first; `why` when there is none.
    """

    box: BoxId
    id: AskId
    order_no: NoOrder = ""
    why: Short = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    sale: msgspec.Raw = msgspec.Raw(b"null")
    lease: Lease | None = None
    parts: Count = 0
    chain: Annotated[str, msgspec.Meta(max_length=16_384)] = ""


def ask_encoded(ask: Ask, kid: str, sign: Sign) -> bytes:
    return jws_encoded(ASK_TYP, msgspec.json.encode(ask), kid, sign)


def ask_decoded(raw: bytes, verifiers: Verifiers) -> Ask:
    """Raises WireError: ASK_SHAPE, ASK_KEY, ASK_SIGNATURE, ASK_PAYLOAD."""
    ask: Ask = _payload(jws_decoded(raw, ASK_TYP, verifiers, "ASK", ASK_MAX_BYTES), Ask, "ASK_PAYLOAD")
    if bool(ask.order_no) != (ask.verb == "sale_by_order") or bool(ask.csr) != (ask.verb == "renew"):
        raise WireError("ASK_PAYLOAD", f"the question {ask.verb} does not say about what, or says more")
    return ask


def answer_encoded(answer: Answer, kid: str, sign: Sign) -> bytes:
    return jws_encoded(ANSWER_TYP, msgspec.json.encode(answer), kid, sign)


def answer_decoded(raw: bytes, verifiers: Verifiers) -> Answer:
    """Raises WireError: ANSWER_SHAPE, ANSWER_KEY, ANSWER_SIGNATURE, ANSWER_PAYLOAD."""
    return _payload(jws_decoded(raw, ANSWER_TYP, verifiers, "ANSWER", ANSWER_MAX_BYTES), Answer, "ANSWER_PAYLOAD")


def _payload(body: bytes, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError(name, f"the document says something unknown: {why}") from None
