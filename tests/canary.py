"""Looks for secrets where none may be, in every spelling that a program is likely to give them.

`secrets_stayed` does it for a whole demo.  `found` takes secrets by name and returns where each turned up: in files whole, in
rows of SQLite besides (a long one lies in pieces on its pages), and in what zlib packed, which batches of records travel in.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from sim.recorder import recorded

PIECE = 24                     # bytes of a long secret that count as the whole: half a key in a log is a key in a log
PAYERS = {"payer at WeChat": b"o-payer-1", "payer at Alipay": b"2088102000000001"}      # whoever pays at the local servers
TOLD_MIN = 9                   # shorter, and chance would find it


def found(secrets: Mapping[str, bytes], places: Iterable[tuple[str, bytes]]) -> dict[str, list[str]]:
    """For each secret that was found, `place: form` of every find.  One shorter than TOLD_MIN is refused: it proves nothing."""
    forms = [(name, form, needle) for name, secret in secrets.items() for form, needle in spellings(secret)]
    hits: dict[str, list[str]] = {}
    for place, held in places:
        for text in (held, *inflated(held)):
            for name, form, needle in forms:
                if needle in text:
                    hits.setdefault(name, []).append(f"{place}: {form}")
    return hits


def spellings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """(form, bytes to look for): plain, escaped, hex, URL, base64 at its three alignments in both alphabets; of each piece of a
    long secret, the lines of a PEM among them."""
    assert len(secret) >= TOLD_MIN, "too short to be told from chance"
    for piece in pieces(secret):
        yield "plain", piece
        text = piece.decode("latin-1")
        for form, other in (("json", json.dumps(text)[1:-1]), ("url", quote(text, safe="")), ("url+", quote_plus(text)),
                            ("hex", piece.hex()), ("HEX", piece.hex().upper()), ("backwards", text[::-1])):
            if other.encode("latin-1") != piece:
                yield form, other.encode("latin-1")
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + piece)
            # The first and last characters also hold bits of what stands beside it.
            core = coded[-(-shift * 8 // 6):len(coded) - 4 if (shift + len(piece)) % 3 else len(coded)]
            yield f"base64+{shift}", core
            if (url := core.replace(b"+", b"-").replace(b"/", b"_")) != core:
                yield f"base64url+{shift}", url


def pieces(secret: bytes) -> list[bytes]:
    """What is looked for: the secret, or PIECE bytes here and there of a long one; of a PEM, of its lines."""
    if b"-----BEGIN" in secret:
        lines = [line for line in secret.splitlines() if line and b"-----" not in line]
        return [line[:PIECE] for line in lines[1::3]] + [base64.b64decode(b"".join(lines))[n:n + PIECE] for n in (60, 300)]
    return [secret] if len(secret) <= 2 * PIECE else [secret[n:n + PIECE] for n in (0, len(secret) // 2, len(secret) - PIECE)]


def inflated(held: bytes) -> Iterator[bytes]:
    """What zlib packed into `held`, wherever it begins; a batch has a header line before it."""
    for begin in (b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        at = held.find(begin)
        while at >= 0:
            try:
                yield zlib.decompressobj().decompress(held[at:], 1 << 24)
            except zlib.error:
                pass
            at = held.find(begin, at + 1)


def secrets_stayed(counter: Path, codes: Iterable[str], said: str = "") -> None:
    """AssertionError when a payer's code or id, or a channel's key, stands in anything that the box of a demo in `counter` wrote,
    logged, printed, showed or sent, or in what the demo `said`.

    The channels' own side is left out: it made the keys, showed the codes and knows its payers; there each must be found.
    """
    theirs = [counter / "channels", counter / "keys"]
    secrets = {f"code {n}": code.encode() for n, code in enumerate(codes)} | PAYERS | keys_of(counter)
    payloads = counter / "payloads.jsonl"
    sent = [(f"message on {topic}", payload) for topic, payload in recorded(payloads)] if payloads.exists() else []
    mine = [*files(counter, but=[*theirs, counter / "seal.key", payloads]), *sent, ("what the demo said", said.encode())]
    places = {place.rpartition("/")[2] for place, _ in mine}
    assert {"journal.db", "daemon.log", "cloud.db", "paper.json", "frame"} <= places, places
    assert not sent or {"up", "ack", "hello"} <= places, places
    assert found(secrets, mine) == {}
    known = set(found(secrets, files(*theirs)))
    assert {name for name in secrets if name.startswith("code")} <= known and "api key" in known, known


def keys_of(counter: Path) -> dict[str, bytes]:
    """Every secret of a demo's channels, by what it is."""
    held = {file.stem: json.loads(file.read_bytes()) for file in (counter / "keys").glob("*.json")}
    assert set(held) == {"wechat", "alipay", "unionpay", "card"}, "a channel's keys that nobody looks for"
    return {"sealing key": (counter / "seal.key").read_bytes().strip(), "card": held["card"].encode(),
            **{f"terminal {n}": key for n, key in enumerate((counter / "keys" / "gateway.key").read_bytes().split()[:2])},
            "api key": held["wechat"]["api_v2_key"].encode(),
            **{f"{name} key": base64.b64decode(held[name][ours]["private_pem"])
               for name, ours in (("wechat", "merchant"), ("alipay", "app"), ("unionpay", "merchant"))}}


def files(*folders: Path, but: Iterable[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file below `folders` but those named, or below a folder named; databases row by row as well."""
    skip = list(but)
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or any(file == one or one in file.parents for one in skip):
                continue
            held = file.read_bytes()
            yield str(file), held
            if held.startswith(b"SQLite format 3\0"):
                yield from rows(file)


def rows(file: Path) -> Iterator[tuple[str, bytes]]:
    with sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for n, row in enumerate(db.execute(f'SELECT * FROM "{table}"')):
                yield f"{file}, {table} {n}", b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in row)
