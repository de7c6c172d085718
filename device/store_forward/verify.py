"""Is this chain of record tokens whole?  Knows tokens and public keys; no journal, no box and no collector.

Memory does not grow with the chain: what is kept is the last record, the keys, and the contents of the last RECENT_MAX records.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from device.store_forward.es256 import VerifyFn, public_verifier
from device.store_forward.rules_of_chain import Late, Retired
from device.store_forward.token import (
    EMPTY_DIGEST,
    TOKEN_BYTES_MAX,
    TOKEN_ERRORS,
    Parsed,
    Sum,
    TokenError,
    digest,
    parse,
    thumbprint,
    unb64,
)

RECENT_MAX = 1024                        # records whose content is remembered, to tell a repeat from a fork
KEYS_MAX = 1024                          # keys of one chain, those it introduces included
LINES_MAX = 200

DEFECTS: dict[str, str] = {
    **TOKEN_ERRORS,
    "UNKNOWN_KEY": "No key of the given set, nor one introduced by a sound `key` record before, has this `kid`.",
    "BAD_SIGNATURE": "The signature was not made by the key that the header names.",
    "KEY_RETIRED": "The record is signed by a key that an earlier `key` record of this journal put another in place of.",
    "BAD_KEY": "A `key` record introduces something that is not a public EC key on P-256.",
    "BOX_CHANGED": "The record is of another box than the one before it.",
    "JID_CHANGED_WITHOUT_AFTER": "A new journal begins, but not at seq 1 with `body.after` naming the older journal's head.",
    "AFTER_NAMES_ANOTHER_HEAD": "A new journal names an older head, and it is not the head of the records before it.",
    "SEQ_GAP": "Records are missing: the number is higher than the next one due.",
    "SEQ_REPEATED": "The number came before.",
    "FORK": "The number came before with other content: two histories exist.",
    "LINK_BROKEN": "`prev` is not the digest of the token before.",
    "SUM_WRONG": "`sum` is not what the sum before and this record make.",
    "TIME_BACKWARDS_IN_BOOT": "Within one boot `mono_ms` fell, and the record is not marked `late`.",
    "LATE_WRONG": "A record is marked `late` and no `signer_gap` counts it, or a gap counts it and it is not marked.",
    "BAD_BODY": "The body of a sale or refund lacks what every one has, or has more than 200 lines.",
    "LINES_DO_NOT_ADD_UP": "The lines of a sale do not make its amount.",
    "TENDERS_DO_NOT_ADD_UP": "The tenders of a sale, its rounding among them, do not make its amount.",
    "NO_RECORDS": "There is nothing to verify: not even the first record of a box.",
}


class Defect(NamedTuple):
    """One fault: a key of `DEFECTS`, the line it stands in, counted from 1, and a sentence."""

    name: str
    line: int
    sentence: str


def verify(lines: Iterable[str], keys: dict[str, VerifyFn], start: tuple[int, str] | None = None) -> Iterator[Defect]:
    """Every defect of the chain in `lines`, one token a line; a defect does not stop the run.

    `keys` maps a kid to its verifier.  `start` is (seq, head) of the record before the first line; without it the chain
    must begin at seq 1.
    """
    chain = Chain(keys, start)
    for line in lines:
        yield from chain.feed(line)
    yield from chain.end()


class Chain:
    """The walk along a chain.  feed() takes a line and gives its defects.

    `seq head jid sum` are those of the last record walked over, whether or not it had a defect of its own.
    """

    def __init__(self, keys: dict[str, VerifyFn], start: tuple[int, str] | None = None) -> None:
        self.lines = self.records = 0
        self.seq, self.head = start or (0, EMPTY_DIGEST)
        self.jid = self.box = ""
        self.sum: Sum | None = None if start else Sum()      # None: not known here, taken as the next record says it
        self._started = start is not None
        self._keys = dict(keys)
        self._retired = Retired()
        self._boot, self._mono_ms = "", 0
        self._late = Late(known=start is None)
        self._unread: list[str] = []                         # digest of the last unreadable line since the last record
        self._unread_count = 0
        self._recent: OrderedDict[int, bytes] = OrderedDict()

    def feed(self, line: str) -> list[Defect]:
        """The defects of the next line."""
        self.lines += 1
        token = line.rstrip("\r\n")
        try:
            record = parse(token)
        except TokenError as error:
            self._unread_count += 1
            self._unread = [digest(token)] if token.isascii() and error.name != "TOO_LONG" else []
            return [Defect(error.name, self.lines, error.sentence)]
        self.records += 1
        found = [*self._signature(record), *self._place(token, record)]
        return [Defect(name, self.lines, sentence) for name, sentence in found]

    def end(self) -> list[Defect]:
        """The defects that only the end shows."""
        if self.lines or self._started:
            return []
        return [Defect("NO_RECORDS", 0, "There is no line to verify.")]

    def _signature(self, record: Parsed) -> Iterator[tuple[str, str]]:
        check = self._keys.get(record.kid)
        if check is None:
            yield "UNKNOWN_KEY", f"No key is named {record.kid}."
        elif not check(record.signing_input, record.signature):
            yield "BAD_SIGNATURE", f"Key {record.kid} did not make this signature."
        elif record.kid in self._retired and record.payload.jid == self.jid and record.payload.seq > self.seq:
            # A number that came before is a repeat, or a fork; a new journal may be that of a restored card, with its old key.
            yield "KEY_RETIRED", f"Key {record.kid} gave way to another before record {record.payload.seq}."
        elif record.payload.kind == "key":
            try:
                jwk = json.loads(bytes(record.payload.body)).get("jwk")
                fresh = public_verifier(jwk)
            except ValueError as error:
                yield "BAD_KEY", f"The key introduced here cannot be used: {error}."
                return
            kid = thumbprint(jwk)
            if kid not in self._keys and len(self._keys) >= KEYS_MAX:
                return
            self._keys[kid] = fresh
            if record.payload.jid != self.jid:
                self._retired.forget()
            if record.payload.jid != self.jid or record.payload.seq > self.seq:
                self._retired.gave_way(record.kid, kid)

    def _place(self, token: str, record: Parsed) -> Iterator[tuple[str, str]]:
        payload = record.payload
        if self.box and payload.box != self.box:
            yield "BOX_CHANGED", f"Box {payload.box} follows box {self.box}."
        body = json.loads(bytes(payload.body))
        first_seen = not self.jid
        if not first_seen and payload.jid != self.jid or first_seen and self._started and payload.seq == 1:
            yield from self._new_journal(payload, body)
        content = sha256(record.signing_input).digest()
        if payload.seq <= self.seq:
            if self._recent.get(payload.seq, content) != content:
                yield "FORK", f"Record {payload.seq} came before with other content."
            else:
                yield "SEQ_REPEATED", f"Record {payload.seq} comes again after record {self.seq}."
            return                                           # the walk goes on from where it stood
        skipped = payload.seq - self.seq - 1
        if skipped > self._unread_count:
            yield "SEQ_GAP", f"Record {payload.seq} follows record {self.seq}: {skipped - self._unread_count} missing."
        elif skipped == 0:
            if payload.prev != self.head:
                yield "LINK_BROKEN", f"Record {payload.seq} does not name the token before it."
        elif self._unread and payload.prev != self._unread[0]:
            yield "LINK_BROKEN", f"Record {payload.seq} does not name the unreadable line before it."
        known = self.sum if skipped == 0 else None
        yield from self._money(payload, body, known)
        yield from self._time(payload, body)
        if late := self._late.wrong(payload.seq, payload.kind, body, skipped == 0):
            yield "LATE_WRONG", late
        self.box, self.jid, self.seq, self.head, self.sum = payload.box, payload.jid, payload.seq, digest(token), payload.sum
        self._unread, self._unread_count = [], 0
        self._recent[payload.seq] = content
        if len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)

    def _new_journal(self, payload: Any, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
        after = body.get("after")
        named = after.get("head") if isinstance(after, dict) else after
        fresh = payload.seq == 1 and isinstance(named, str)
        if not fresh:
            yield "JID_CHANGED_WITHOUT_AFTER", f"Journal {payload.jid} begins at record {payload.seq} and names no older head."
        elif named != self.head and not self._unread_count:
            yield "AFTER_NAMES_ANOTHER_HEAD", f"Journal {payload.jid} names another head than that of record {self.seq}."
        # Walk on in the new journal: at its first record from nothing, elsewhere from what this record says.
        self.seq, self.head, self.sum = (0, EMPTY_DIGEST, Sum()) if payload.seq == 1 else (payload.seq - 1, payload.prev, None)
        self._unread, self._unread_count = [], 0
        self._late.forget()                                  # what waited goes along, its gap may stand in the old journal
        self._recent.clear()
        if payload.kind != "key":
            self._retired.forget()

    def _money(self, payload: Any, body: dict[str, Any], known: Sum | None) -> Iterator[tuple[str, str]]:
        sale = refund = 0
        if payload.kind in ("sale", "refund"):
            amount_fen = body.get("amount_fen")
            if not isinstance(amount_fen, int) or amount_fen < 0:
                yield "BAD_BODY", f"The {payload.kind} has no amount_fen."
                amount_fen, known = 0, None
            elif payload.kind == "sale":
                yield from _sale_defects(body, amount_fen)
            sale, refund = (amount_fen, 0) if payload.kind == "sale" else (0, amount_fen)
        if known is None:
            return
        due = Sum(known.sales_fen + sale, known.refunds_fen + refund, known.count + (payload.kind in ("sale", "refund")))
        if due != payload.sum:
            yield "SUM_WRONG", f"The sum should be {_said(due)} and says {_said(payload.sum)}."

    def _time(self, payload: Any, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if body.get("late") is True:
            return                                           # signed after newer ones: its time is that of what happened
        if payload.boot == self._boot and payload.mono_ms < self._mono_ms:
            yield "TIME_BACKWARDS_IN_BOOT", f"mono_ms falls from {self._mono_ms} to {payload.mono_ms} in boot {payload.boot[:40]}."
        self._boot, self._mono_ms = payload.boot, payload.mono_ms


def main(argv: list[str]) -> int:
    """`tillbox verify FILE --keys JWKS [--from SEQ:HEAD] [--json]`: 0 whole, 1 with defects, 2 for arguments that do not serve."""
    try:
        asked = _arguments(argv)
        keys, start = _keys(asked.keys), _start(getattr(asked, "from"))
        file: BinaryIO = sys.stdin.buffer if asked.file == "-" else open(asked.file, "rb")
    except (ValueError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"tillbox verify: {reason}", file=sys.stderr)
        return 2
    chain, defects = Chain(keys, start), 0
    with file:
        for found in _walk(chain, file):
            defects += 1
            print(json.dumps(found._asdict()) if asked.json else f"{found.name} line {found.line}: {found.sentence}")
    summary = {"whole": not defects, "records": chain.records, "defects": defects, "jid": chain.jid, "seq": chain.seq,
               "head": chain.head}
    if asked.json:
        print(json.dumps(summary))
    elif not defects:
        print(f"whole: {chain.records} records, the last is {chain.seq}:{chain.head}")
    return 1 if defects else 0


def _walk(chain: Chain, file: BinaryIO) -> Iterator[Defect]:
    for line in _lines(file):
        yield from chain.feed(line)
    yield from chain.end()


def _lines(file: BinaryIO) -> Iterator[str]:
    """Lines of `file`, those above the limit cut one past it, whatever their length on disk."""
    while raw := file.readline(TOKEN_BYTES_MAX + 2):
        line = raw
        while not raw.endswith(b"\n") and len(raw) == TOKEN_BYTES_MAX + 2:
            raw = file.readline(TOKEN_BYTES_MAX + 2)
        yield line.decode("latin-1")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="tillbox verify", description="Check a chain of record tokens, one a line.")
    parser.add_argument("file", help="file of tokens, - for standard input")
    parser.add_argument("--keys", required=True, metavar="JWKS", help="JSON file with the box's public keys")
    parser.add_argument("--from", metavar="SEQ:HEAD", help="number and digest of the record before the first line")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    return parser.parse_args(argv)


def _keys(path: str) -> dict[str, VerifyFn]:
    try:
        tree = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON") from None
    jwks = tree.get("keys", [tree]) if isinstance(tree, dict) else None
    if not isinstance(jwks, list) or not jwks:
        raise ValueError(f"{path} holds no key: a JWKS is an object with a list of keys")
    try:
        return {thumbprint(jwk): public_verifier(jwk) for jwk in jwks if isinstance(jwk, dict) or _no_key()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _no_key() -> NoReturn:
    raise ValueError("a key is not an object")


def _start(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, head = text.partition(":")
    try:
        if not (seq.isascii() and seq.isdigit() and 1 <= int(seq) < 2**53 and len(unb64(head)) == 32):
            raise ValueError
    except ValueError:
        raise ValueError(f"--from takes SEQ:HEAD, a number from 1 and a digest of 43 characters, not {text[:80]!r}") from None
    return int(seq), head


def _sale_defects(body: dict[str, Any], amount_fen: int) -> Iterator[tuple[str, str]]:
    lines, tenders = body.get("lines"), body.get("tenders")
    if not _amounts_stand(lines) or not _amounts_stand(tenders):
        yield "BAD_BODY", "The sale's lines or tenders are not lists of objects with an amount_fen."
        return
    if len(lines) > LINES_MAX:
        yield "BAD_BODY", f"The sale has {len(lines)} lines, at most {LINES_MAX} are allowed."
    for name, rows in (("LINES", lines), ("TENDERS", tenders)):      # what cash is rounded by is a tender too
        made = sum(row["amount_fen"] for row in rows)
        if made != amount_fen:
            yield f"{name}_DO_NOT_ADD_UP", f"The {name.lower()} make {made} fen, the sale says {amount_fen}."


def _amounts_stand(rows: Any) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("amount_fen"), int) for row in rows)


def _said(total: Sum) -> str:
    return f"{total.sales_fen} sold, {total.refunds_fen} given back, {total.count} counted"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
