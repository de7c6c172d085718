"""Everything that is committed, checked once more from the first record to the head: `tillfleet verify`.

Knows the store as a reader; believes none of its marks but the heads, which it holds against the records.  A journal at a time, a
few hundred records at a time, so that memory does not grow with the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from device.store_forward.es256 import public_verifier
from device.store_forward.rules_of_chain import Late, Retired
from device.store_forward.token import EMPTY_DIGEST, Parsed, TokenError, digest, parse, thumbprint
from fleet.records.store import Store

TOGETHER = 500

Defect = tuple[str, str, int, str, str]  # box, jid, seq, ERROR_NAME, sentence


def defects(store: Store) -> list[Defect]:
    """(box, jid, seq, ERROR_NAME, sentence) for each defect, alarms included."""
    return walked(store)[0]


def walked(store: Store) -> tuple[list[Defect], dict[str, int]]:
    """The defects, and `{"sales_fen", "refunds_fen", "count"}` of the records of each journal before its first defect."""
    found: list[Defect] = []
    total = {"sales_fen": 0, "refunds_fen": 0, "count": 0}
    for box, jid, upto, head in store.guards():
        here, running = _journal(store, box, jid, upto, head)
        found += here
        total = {name: total[name] + running[name] for name in total}
    found += [(box, jid, seq, name.upper(), sentence) for box, jid, seq, name, sentence in store.alarms()]
    return found, total


def _journal(store: Store, box: str, jid: str, upto: int, head: str) -> tuple[list[Defect], dict[str, int]]:
    found: list[Defect] = []
    prev, running = EMPTY_DIGEST, {"sales_fen": 0, "refunds_fen": 0, "count": 0}
    proven = running
    there, due, blind = 0, 1, False
    late, retired = Late(known=False), Retired()
    for start in range(0, upto, TOGETHER):
        last = min(upto, start + TOGETHER)
        tokens = store.numbered(box, jid, start + 1, last)
        there += len(tokens)
        for seq, token in tokens:
            record = _record(store, box, jid, seq, token, found)
            if record is None:
                blind = True                         # what it adds is unknown: the next one's word must do
            else:
                found += [(box, jid, seq, *said) for said in _rules(record, late, retired, not blind and seq == due)]
                if record.payload.prev != prev:
                    found.append((box, jid, seq, "LINK", f"record {seq} does not name the record before it"))
                running = _added(running, record)
                told = msgspec.to_builtins(record.payload.sum)
                if told != running and not blind:
                    found.append((box, jid, seq, "SUM", f"record {seq} says {told}, the records give {running}"))
                running, blind = told, False
            prev, due = digest(token), seq + 1
            proven = proven if found else running
    if there != upto:
        found.append((box, jid, upto, "GAP", f"{there} records stand below {upto}"))
    if there and prev != head:
        found.append((box, jid, upto, "HEAD", "the last record is not the one that was acknowledged"))
    return found, proven


def _record(store: Store, box: str, jid: str, seq: int, token: str, found: list[Defect]) -> Parsed | None:
    try:
        record = parse(token)
    except TokenError as why:
        found.append((box, jid, seq, why.name, why.sentence))
        return None
    verify = store.verifier(box, record.kid)
    if verify is None:
        found.append((box, jid, seq, "KEY_UNKNOWN", f"record {seq} is signed by an unknown key"))
        return None
    if not verify(record.signing_input, record.signature):
        found.append((box, jid, seq, "BAD_SIGNATURE", f"the signature of record {seq} does not hold"))
        return None
    if (record.payload.box, record.payload.jid, record.payload.seq) != (box, jid, seq):
        found.append((box, jid, seq, "PLACE", f"record {seq} names another box, journal or number"))
    return record


def _rules(record: Parsed, late: Late, retired: Retired, follows: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with a record by its place in its journal alone; its signature holds."""
    payload, body = record.payload, msgspec.json.decode(record.payload.body)
    if said := late.wrong(payload.seq, payload.kind, body, follows):
        yield "LATE_WRONG", said
    if record.kid in retired:
        yield "KEY_RETIRED", f"record {payload.seq} is signed by a key that gave way to another before it"
    elif payload.kind == "key":
        with contextlib.suppress(ValueError):                # the door has said what is wrong with it
            public_verifier(body.get("jwk"))
            retired.gave_way(record.kid, thumbprint(body["jwk"]))


def _added(running: dict[str, int], record: Parsed) -> dict[str, int]:
    field = {"sale": "sales_fen", "refund": "refunds_fen"}.get(record.payload.kind)
    if field is None:
        return running
    amount_fen = msgspec.json.decode(record.payload.body).get("amount_fen", 0)
    return {**running, field: running[field] + amount_fen, "count": running["count"] + 1}
