"""`python -m tests.config_attacks [--seed N] [--count N] [--json]`: configurations that no box may take, thrown at a real pusher.

Each attack is drawn from one seed and thrown at a box that runs version 3 of its configuration.  Exit status 1 when one of them was
taken, staged, or changed anything but the counts and, where the cloud's own key signed nonsense, the mark.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from device.mqtt import config_wire as wire
from device.mqtt.wire import jws_encoded
from device.store_forward.token import b64, unb64
from tests.pushed_box import KEY, Box, Key, blob_of, doc

Attack = Callable[[random.Random, "Target"], bytes]


class Target:
    """A box with a history: versions 1 to 3 were taken, and their documents are known to the attacker."""

    def __init__(self, folder: Path) -> None:
        self.box = Box(folder)
        self.stranger = Key()
        self.history = [self.box.push(doc(n, {"printer": {"columns": 30 + n}})) for n in (1,)]
        self.box.wait(3)
        for n in (2, 3):
            self.history.append(self.box.push(doc(n, {"printer": {"columns": 30 + n}})))
            self.box.wait(3)
        assert (self.box.report.state, self.box.columns) == ("active", 33)
        self.version = 3

    def next(self) -> int:
        self.version += 1
        return self.version

    def signed(self, payload: bytes, key: Key = KEY, typ: str = wire.CONFIG_TYP) -> bytes:
        return jws_encoded(typ, payload, key.kid, key.sign)

    def good(self, told: dict[str, Any] | None = None, **more: Any) -> bytes:
        return msgspec.json.encode(doc(self.version + 1, told, **more))

    def survived(self, before: tuple) -> bool:
        """True when nothing was taken, at once or after a while of idleness."""
        self.box.wait(2)
        state = self.box.layers.store.state
        return self.now() == before and not state.staged and not state.phase

    def now(self) -> tuple:
        state = self.box.layers.store.state
        return state.active, state.previous, self.box.columns, self.box.starts, len(self.box.taken), self.box.config


def _replay(r: random.Random, t: Target) -> bytes:
    return r.choice(t.history[:-1])


def _same_version(r: random.Random, t: Target) -> bytes:
    return t.signed(msgspec.json.encode(doc(r.randint(1, 3), {"printer": {"columns": r.randint(34, 64)}})))


def _other_box(r: random.Random, t: Target) -> bytes:
    return t.signed(t.good(box=r.choice(["box-2", "box-10", "box", "1"])))


def _expired(r: random.Random, t: Target) -> bytes:
    return t.signed(msgspec.json.encode(doc(t.next(), expires=f"20{r.randint(10, 25)}-0{r.randint(1, 9)}-01T00:00:00Z")))


def _truncated(r: random.Random, t: Target) -> bytes:
    token = t.signed(t.good())
    return token[:r.randrange(len(token))] or b"x"


def _wrong_key(r: random.Random, t: Target) -> bytes:
    if r.random() < 0.5:
        return t.signed(t.good(), t.stranger)
    signing = b64(msgspec.json.encode({"alg": "ES256", "kid": KEY.kid, "typ": wire.CONFIG_TYP})) + "." + b64(t.good())
    return f"{signing}.{b64(t.stranger.sign(signing.encode()))}".encode()


def _header(r: random.Random, t: Target) -> bytes:
    heads: list[dict[str, Any]] = [
        {"alg": "none", "kid": KEY.kid, "typ": wire.CONFIG_TYP}, {"alg": "HS256", "kid": KEY.kid, "typ": wire.CONFIG_TYP},
        {"alg": "ES256", "kid": KEY.kid, "typ": wire.CONFIG_TYP, "jwk": t.stranger.jwk},
        {"alg": "ES256", "kid": t.stranger.kid, "typ": wire.CONFIG_TYP, "jwk": t.stranger.jwk},
        {"alg": "ES256", "kid": KEY.kid, "typ": wire.CONFIG_TYP, "crit": ["exp"]}, {"alg": "ES256", "typ": wire.CONFIG_TYP}]
    signing = b64(msgspec.json.encode(r.choice(heads))) + "." + b64(t.good())
    return f"{signing}.{b64(r.choice([t.stranger, KEY]).sign(signing.encode())) if r.random() < 0.8 else ''}".encode()


def _other_purpose(r: random.Random, t: Target) -> bytes:
    typs = ["till-cmd+jws", "till-ack+jws", "till-answer+jws", "till-rules+jws", "till+jws", "JWT", ""]
    return t.signed(t.good(), typ=r.choice(typs))


def _flipped(r: random.Random, t: Target) -> bytes:
    token = bytearray(t.signed(t.good()))
    n = r.randrange(len(token) - 1)                # the last character's low bits are no part of the signature
    token[n] ^= 1 << r.randrange(7)
    return bytes(token)


def _grafted(r: random.Random, t: Target) -> bytes:
    """The payload of one document under the signature of another."""
    head, _, signature = t.history[-1].split(b".")
    return b".".join([head, b64(t.good()).encode(), signature])


def _doubled(r: random.Random, t: Target) -> bytes:
    body = t.good()
    at = r.choice([b'"version":', b'"box":', b'"columns":', b'"printer":', b'"set":'])
    n = body.index(at)
    value = {b'"version":': b"1", b'"box":': b'"box-2"', b'"columns":': b"24", b'"printer":': b"{}", b'"set":': b"{}"}[at]
    return t.signed(body[:n] + at + value + b"," + body[n:])


def _deep(r: random.Random, t: Target) -> bytes:
    depth = r.choice([9, 50, 1_000, 10_000, 20_000])
    one, other = r.choice([(b"[", b"]"), (b'{"a":', b"}")])
    bomb = (one * depth + b"1" + other * (depth if r.random() < 0.7 else 0))[:40_000]
    return t.signed(t.good().replace(b'{"columns":32}', bomb))


def _long(r: random.Random, t: Target) -> bytes:
    size = r.choice([66_000, 200_000, 2_000_000])
    return t.signed(t.good({"shop_en": "x" * size})) if r.random() < 0.5 else r.randbytes(size)


def _many(r: random.Random, t: Target) -> bytes:
    return t.signed(t.good({f"k{n}": n for n in range(r.randint(500, 4_000))}))


def _number(r: random.Random, t: Target) -> bytes:
    odd = r.choice([b"NaN", b"Infinity", b"-Infinity", b"1e400", b"32.0", b"1" * 16, b"1" * 5_000, b"3e1", b"-0.0",
                    b"0x20", b"1_0"])
    return t.signed(t.good().replace(b":32", b":" + odd))


def _text(r: random.Random, t: Target) -> bytes:
    odd = r.choice([b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\u0000"', b'"\x01"', b'"\\u202e"', b'"' + b"x" * 60 + b'"'])
    return t.signed(t.good({"shop_en": "Q"}).replace(b'"Q"', odd))


def _shape(r: random.Random, t: Target) -> bytes:
    wrong: list[Any] = [None, True, "4", -1, [], {}, 10**14 * 9 + r.randrange(10), "box-1 "]
    payload: dict[str, Any] = msgspec.to_builtins(doc(t.version + 1))
    what = r.choice(["epoch", "version", "box", "not_before", "expires", "body", "set", "blobs", "origin", "payee_change", "more"])
    at = payload["body"] if what in ("set", "blobs", "origin", "payee_change") else payload
    at[what] = r.choice([value for value in wrong if not _fits(what, value)])
    if r.random() < 0.2:
        payload.pop(r.choice(["epoch", "version", "box"]))
    return t.signed(msgspec.json.encode(payload))


def _fits(what: str, value: Any) -> bool:
    return {"epoch": type(value) is int and value >= 0, "version": type(value) is int and value > 0, "box": False,
            "not_before": False, "expires": False, "body": value == {}, "set": value == {}, "blobs": value == {},
            "origin": value == {},
            "payee_change": value is True, "more": False}[what]


def _nonsense(r: random.Random, t: Target) -> bytes:
    """Well signed, well formed, and wrong."""
    value: Any = r.choice([0, -1, 10**14, "", "yes", True, [], [[1]], {}, {"a": {}}, None, "x" * 300])
    told: dict[str, Any] = r.choice([
        {"printer": {"columns": r.choice([0, 23, 65, -1, 10**14, "32", True, None, [], {}])}}, {"printer": value if value else 0},
        {"printer": {"colums": 32}}, {"prices": value}, {"mqtt": {"port": r.choice([0, 65_536, "1883", True])}},
        {"lang": r.choice(["xx", 1, True, None])}, {"route": r.choice([["cash"], "gateway", [1], [[]]])},
        {"channel": {r.choice(["wechat", "bitcoin", "Gateway"]): {}}}, {"channel": r.choice([0, "x", [], {"gateway": 0}])},
        {"template": r.choice([0, {}, [0], [{}], [{"pattern": "F"}]])}, {"supervisor": [{"name": "x", "badge": "y", "pin": "z"}]},
        {"cutoff_hour": r.choice([24, -1, "4"])}, {"keypad": {"layout": {"KEY_A": value}}}])
    return t.signed(msgspec.json.encode(doc(t.next(), told)))


def _forbidden(r: random.Random, t: Target) -> bytes:
    told: dict[str, Any] = r.choice([
        {"box": "box-2"}, {"box_no": "0000B2"}, {"tenant": "thief"}, {"state_dir": "/tmp"}, {"run_dir": "/tmp"}, {"training": True},
        {"merchant_keys_on_box": True}, {"record_key_file": "x"}, {"ack_key_file": "x"}, {"config_key_file": "x"},
        {"command_key_file": "x"}, {"rules_key_file": "x"}, {"encryption_key_file": "x"}, {"identity_dir": "x"},
        {"seal_key_file": "x"},
        {"prices_file": "/etc/passwd"}, {"rules_file": "x"}, {"signer": {"kind": "pkcs11"}}, {"display": {"kind": "file"}},
        {"printer": {"kind": "file", "path": "/etc/cron.d/x"}}, {"sound": {"kind": "file", "path": "/dev/x"}},
        {"scanner": {"path": r.choice(["/etc/passwd", "/dev/../etc/x", "x", "/dev/$(x)"])}}, {"mqtt": {"ca_file": "x"}},
        {"mqtt": {"cert_file": "x", "key_file": "y"}}, {"mqtt": {"host": ""}}, {"mqtt": {"password": "plain"}},
        {"mqtt": {"password": {"jwe": r.choice(["", "a.b.c", "e30..AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA"])}}},
        {"printer": {"host": {"jwe": "x"}}}, {"instalment_code": "1234"},
        {"channel": {"gateway": {"base_url": r.choice(["https://thief.example", "http://127.0.0.1:1", "http://[::1]/", "file:///x"])}}},
        {"channel": {"gateway": {"terminal_id": "THIEF"}}}, {"channel": {"gateway": {"secret": "mine"}}},
        {"channel": {"gateway": {"fields": {"store": "thief"}}}}, {"channel": {"card": {"terminal_id": "X", "path": "/dev/ttyX"}}},
        {"channel": {"gateway": {"private_key_file": r.choice(["/root/x", "../x", "identity/tls.key", "config/state.json"])}}},
        {"channel": {"gateway": {"ca_file": "mine.pem"}}}])
    return t.signed(msgspec.json.encode(doc(t.next(), told)))


def _blob(r: random.Random, t: Target) -> bytes:
    """Blobs of odd names and sizes; those that a document may name are sent at once, and are no price book."""
    payload: dict[str, Any] = msgspec.to_builtins(doc(t.next(), {}))
    good = {"sha256": "a" * 64, "bytes": 10}
    if r.random() < 0.5:
        name = r.choice(["../prices", "", "Prices", "picture/../x", "picture/", "prices\n", "x" * 300])
        payload["body"]["blobs"] = {name: good}
    else:
        payload["body"]["blobs"] = {"prices": good | r.choice([
            {"sha256": "A" * 64}, {"sha256": "../" + "a" * 61}, {"sha256": ""}, {"bytes": 0}, {"bytes": 1 << 40}, {"bytes": -1},
            {"chunks": 1}, {"deltas": [{"base": "x"}]}, {"deltas": [{}] * 9}])}
    return t.signed(msgspec.json.encode(payload))


def _price_book(r: random.Random, t: Target) -> bytes:
    rows = r.choice(["6902538004045,a,b,0,piece,x", "6902538004045,a,b,-5,piece,x", "6902538004045,a,b,1e3,piece,x",
                     "1,a,b,5,piece,x",
                     "6902538004045,a,b,5,box,x", "6902538004045,,b,5,piece,x",
                     "6902538004045,a,b,5,piece,x\n" * 2, "\x00", "\"", ""])
    book = f"gtin,name_zh,name_en,price_fen,unit,source\n{rows}\n".encode() if r.random() < 0.9 else r.randbytes(100)
    blob = blob_of(book)
    t.box.push(wire.config_encoded(doc(t.next(), {}, blobs={"prices": blob}), KEY.kid, KEY.sign))
    t.box.pusher.step()
    t.box.feed(blob.sha256, book)
    return b"x"


def _noise(r: random.Random, t: Target) -> bytes:
    return r.choice([r.randbytes(r.randint(1, 500)), b"{}", b".", b"..", b"a.a.a", b"\x00" * 100, b64(r.randbytes(60)).encode(),
                     b".".join(b64(r.randbytes(r.randint(1, 99))).encode() for _ in range(3)),
                     unb64(t.history[-1].split(b".")[1].decode())])


ATTACKS: dict[str, Attack] = {
    "replay": _replay, "same version": _same_version, "other box": _other_box, "expired": _expired, "truncated": _truncated,
    "wrong key": _wrong_key, "header": _header, "other purpose": _other_purpose, "flipped bit": _flipped, "grafted": _grafted,
    "duplicate keys": _doubled, "depth bomb": _deep, "size bomb": _long, "many keys": _many, "odd number": _number,
    "odd text": _text, "wrong shape": _shape, "nonsense": _nonsense, "forbidden": _forbidden, "odd blob": _blob,
    "bad price book": _price_book, "noise": _noise}


def played(seed: int, count: int, folder: Path) -> dict[str, Any]:
    """Throw `count` attacks; `accepted` names those that were taken, `slowest_ms` the longest that one held the box up."""
    target, draw = Target(folder), random.Random(seed)
    names = [name for n in range(count) for name in (list(ATTACKS)[n % len(ATTACKS)],)]
    accepted, slowest_ms, fired = [], 0.0, Counter(names)
    for n, name in enumerate(names):
        before, refused = target.now(), target.box.report.refused
        token = ATTACKS[name](draw, target)
        began = time.process_time()
        target.box.push(token)
        slowest_ms = max(slowest_ms, (time.process_time() - began) * 1000)
        if not target.survived(before) or target.box.report.refused <= refused:
            accepted.append(f"{n} {name}: {token[:2_000]!r} {target.box.report.state} {target.box.report.why}")
    target.box.push(doc(target.next() + 10, {"printer": {"columns": 50}}, epoch=0))
    target.box.wait(3)
    return {"seed": seed, "attacks": count, "kinds": len(fired), "accepted": accepted, "slowest_ms": round(slowest_ms, 1),
            "takes_a_good_one_still": target.box.columns == 50}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.config_attacks", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        told = played(args.seed, args.count, Path(folder))
    holds = not told["accepted"] and told["takes_a_good_one_still"]
    print(json.dumps({**told, "accepted": len(told["accepted"]), "holds": holds}) if args.json else
          f"{told['attacks']} attacks of {told['kinds']} kinds from seed {told['seed']}: {len(told['accepted'])} accepted; the "
          f"slowest took {told['slowest_ms']} ms; "
          f"a good configuration is {'still' if told['takes_a_good_one_still'] else 'NOT'} taken")
    for one in told["accepted"][:10]:
        print(f"  accepted: {one}", file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
