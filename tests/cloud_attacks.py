"""`python -m tests.cloud_attacks [--seed N] [--count N] [--store sqlite|postgresql] [--json]`: an enrolled box that means harm.

Its certificate is good and its record key known, so the broker hands over whatever it says on its own topics.  Each attack is
drawn from one seed and put before a real clerk with every taker that `tillfleet collect` registers; the courier's rooms look for
work after each.  Exit status 1 when something raised, another box was kept waiting or lost something, a hostile text reached a
person's terminal, or the store grew by what nobody bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from device.mqtt import cmd_wire, config_wire, topics, wire
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, digest, seal, signing_input
from fleet import groups
from fleet.__main__ import main as fleet_main
from fleet.commands import kept
from fleet.commands.courier import command_room
from fleet.identity import enrol
from fleet.keys import SigningKey
from fleet.push import config
from fleet.push.layers import EVERYONE
from fleet.push.rollouts import Rollouts
from fleet.push.room import BlobRoom, config_room
from fleet.records.collector import Clerk
from fleet.records.store import Store
from tests.record_chain import Chain, Key

AT = "2026-07-14T09:26:53+08:00"
TENANT, HOSTILE, WITNESS = "shop", "box-1", "box-2"
ODD: tuple[bytes, ...] = (
    b'"\\u0000"', b'"a\\u0000b"', b'"\\u001b[2Jgone"', b'"\\u202e\\u009b31m"', b'"\\ud800"', b'"\xff\xfe"',
    b'"' + b"x" * 600 + b'"', b'"' + "钱".encode() * 200 + b'"', b'""', b"null", b"true", b"-1", b"0", b"1",
    b"9007199254740992", b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"1" * 400,
    b"1e400", b"NaN", b"1.5", b"[]", b"{}", b"[" * 5_000,
    b"[" * 900 + b"]" * 900, b'{"a":' * 2_000, b'"2026-13-45T99:99:99+99:99"', b'"0000-00-00T00:00:00Z"', b'"../../etc/passwd"',
    b'"box-2"', b'"\'; DROP TABLE guard; --"', b'"%s%n{}"')
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Message = tuple[str, bytes]                      # the topic's name, payload
Attack = Callable[[random.Random, "Cloud"], list[Message]]


class Cloud:
    """A clerk with all its takers over the store at `where`, the courier's rooms beside it, one hostile box and one good one."""

    def __init__(self, where: str, folder: Path) -> None:
        self.where, self.folder, self.key, self.good, self.ack = where, folder, Key(), Key(), Key()
        (folder / "settle.toml").write_text("account = []\n")
        self.store = Store(where, [{**self.key.jwk, "box": HOSTILE}, {**self.good.jwk, "box": WITNESS}])
        self.now = AT
        self.clerk = Clerk(self.store, TENANT, self.ack.kid, self.ack.sign, lambda: self.now)
        groups.made(self.store.database, groups.SCHEMA, kept.SCHEMA, config.SCHEMA, enrol.SCHEMA)
        desk, configs = kept.CommandDesk(self.store.database), config.ConfigDesk(self.store.database)
        for name, taker in {"hello": desk.hello, "status": desk.status, "cmd/res": desk.result,
                            "config/reported": configs.reported}.items():
            self.clerk.register(name, taker)
        signing = SigningKey(folder / "sign.pem")
        self.rooms = [command_room(self.store.database, TENANT, signing), config_room(self.store.database, TENANT, signing),
                      BlobRoom(self.store.database, TENANT)]
        self.chain, self.witness = Chain(self.key, HOSTILE, "h" * 21 + "A"), Chain(self.good, WITNESS, "w" * 21 + "A")
        self.sent = 0
        self.asked: list[str] = []
        with self.store.database.transaction():
            self.asked = kept.Commands(self.store.database).ask([HOSTILE], "status", "", "li:admin", AT, 10**9)
            Rollouts(self.store.database).configs.put_layer(EVERYONE, {"shop_en": "Corner"}, {}, "li", AT)
            Rollouts(self.store.database).push(None, [HOSTILE, WITNESS], "li", AT)
        self.said(HOSTILE, "hello", self.hello(self.chain))
        self.said(WITNESS, "hello", self.hello(self.witness))

    def hello(self, chain: Chain, session: str = "s1") -> bytes:
        head = wire.JournalHead(chain.jid, 1, len(chain.tokens) + 1, digest(chain.tokens[-1]) if chain.tokens else EMPTY_DIGEST)
        return wire.encoded(wire.Hello((head,), session, "0.1", "1.0", "boot", "ntp", 10**9, 0))

    def said(self, box: str, name: str, payload: bytes) -> list[tuple[str, bytes]]:
        return self.clerk.handle([(topics.of_box(TENANT, box, name), payload)])

    def together(self, messages: list[Message]) -> list[tuple[str, bytes]]:
        return self.clerk.handle([(topics.of_box(TENANT, HOSTILE, name), payload) for name, payload in messages])

    def ticks(self) -> list[Any]:
        """What each of the courier's rooms would send now."""
        sent: list[Any] = []
        for room in self.rooms:
            with self.store.database.transaction():
                sent += room(self.now)
        return sent

    def served(self) -> bool:
        """Whether the good box's next record is committed and acknowledged at once."""
        self.witness.add()
        n = len(self.witness.tokens)
        (_, raw), = self.said(WITNESS, "up", wire.batch_encoded(self.witness.batch(n, n)))
        ack = wire.ack_decoded(raw, {self.ack.kid: public_verifier(self.ack.jwk)})
        return (ack.upto, ack.verdict, ack.head) == (n, "ok", digest(self.witness.tokens[-1]))

    def rows(self) -> int:
        """Rows that messages without a signed record can make."""
        return sum(int(self.store.database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in (
            "alarm", "quarantine", "open_now", "session", "reported", "guard"))

    def signed(self, payload: bytes, kid: str = "") -> str:
        signing = signing_input(kid or self.key.kid, payload)
        return seal(signing, self.key.sign(signing))


def jid_of(r: random.Random) -> str:
    return f"{r.randrange(10**18):021d}A"


# What is said without a signature ---------------------------------------------------------------------------------------------

def valid(r: random.Random, cloud: Cloud) -> Message:
    """A good message on one of the topics that carry JSON."""
    name = r.choice(("hello", "status", "open", "config/reported", "cmd/res"))
    n = r.randint(1, 5)
    bodies = {
        "hello": cloud.hello(cloud.chain, f"s{n}"), "status": wire.encoded(wire.Status("up", n, AT)),
        "open": wire.encoded(tuple(wire.OpenOrder(f"N{i}", "wechat", "main", 900, i, AT, "qr") for i in range(n))),
        "config/reported": config_wire.reported_encoded(config_wire.Reported(
            0, 1, "", "active", "", AT, "ntp", ("one", "two"), config_wire.Standing(0, 1, ""), {"ab" * 32: ((0, 3),)}, 1)),
        "cmd/res": cmd_wire.answer_encoded(cmd_wire.CmdAnswer(HOSTILE, cloud.asked[0], False, error="no", name="busy", at=AT))}
    return name, bodies[name]


def odd_value(r: random.Random, cloud: Cloud) -> list[Message]:
    """One value of a good message is another: any JSON, or none."""
    name, body = valid(r, cloud)
    places = [m.span(1) for m in re.finditer(rb'[:\[,]("[^"]*"|-?\d+|true|false|\[\]|\{\})', body)]
    at, end = r.choice(places)
    return [(name, body[:at] + r.choice(ODD) + body[end:])]


def odd_key(r: random.Random, cloud: Cloud) -> list[Message]:
    name, body = valid(r, cloud)
    at, end = r.choice([m.span() for m in re.finditer(rb'"[a-z_]+":', body)] or [(0, 0)])
    return [(name, body[:at] + r.choice((b'"\\u0000":', b'"":', body[at:end] + b"0," + body[at:end])) + body[end:])]


def spoilt(r: random.Random, cloud: Cloud) -> list[Message]:
    """Bytes flipped, cut, doubled, or of another kind altogether."""
    name, body = valid(r, cloud)
    raw = bytearray(body)
    how = r.randrange(6)
    if how == 0:
        for _ in range(r.randint(1, 5)):
            raw[r.randrange(len(raw))] ^= 1 << r.randrange(8)
    elif how == 1:
        raw = raw[:r.randrange(len(raw))]
    elif how == 2:
        raw = raw * 2
    elif how == 3:
        raw = bytearray(r.randbytes(r.choice((0, 1, 100, 70_000))))
    elif how == 4:
        raw = bytearray(b"\xef\xbb\xbf") + raw
    else:
        raw = bytearray(r.choice((b"[", b'{"a":')) * r.choice((10, 1_000, 10_000)))
    return [(name, bytes(raw))]


def elsewhere(r: random.Random, cloud: Cloud) -> list[Message]:
    """A good message on the wrong topic."""
    return [(r.choice(("hello", "status", "open", "ask", "config/reported", "cmd/res", "up")), valid(r, cloud)[1])]


def absurd_numbers(r: random.Random, cloud: Cloud) -> list[Message]:
    """Numbers within the bounds of their types that no box has."""
    top = r.choice((2**53, 2**53 - 1, 2**31, 10**9))
    jids = [cloud.chain.jid] + [jid_of(r) for _ in range(63)]
    heads = tuple(wire.JournalHead(jid, 1, r.choice((top, top - r.randrange(9), 1)), r.choice(("", "x" * 43))) for jid in jids)
    orders = tuple(wire.OpenOrder("N" * 32, "c" * 32, "a" * 64, top, top, AT) for _ in range(200))
    far = config_wire.Reported(10**15 - 1, 10**15 - 1, "f" * 64, "active", refused=10**15 - 1)
    return [("hello", wire.encoded(wire.Hello(heads, "s", free_bytes=top, oldest_unacked_s=top))), ("open", wire.encoded(orders)),
            ("status", wire.encoded(wire.Status(r.choice(("up", "down")), top))),
            ("config/reported", config_wire.reported_encoded(far))]


def ends_that_jump(r: random.Random, cloud: Cloud) -> list[Message]:
    """The end of its journal, said to be here and there: each fall is an alarm."""
    told = []
    for n in (r.randrange(10**6, 10**12), len(cloud.chain.tokens)):
        head = wire.JournalHead(cloud.chain.jid, 1, n + 1, "x" * 43)
        told.append(("hello", wire.encoded(wire.Hello((head,), "s"))))
    return told


def full_reports(r: random.Random, cloud: Cloud) -> list[Message]:
    """A report as long as one may be, that leaves out what has a default."""
    want = ",".join(f'"{n:064x}":[{",".join("[0,999999]" for _ in range(20))}]' for n in range(60))
    reasons = ",".join('"' + "r" * 480 + '"' for _ in range(31))
    body = f'{{"epoch":0,"version":1,"digest":"","state":"refused","reasons":[{reasons}],"want":{{{want}}},"why":"'
    return [("config/reported", (body + "w" * (config_wire.REPORTED_MAX_BYTES - len(body) - 2) + '"}').encode())]


def terminal(r: random.Random, cloud: Cloud) -> list[Message]:
    """Texts that would move the cursor of whoever reads them, or forge a line."""
    said = r.choice(("\x1b[2J\x1b[Hall is well", "no\nbox-9            active", "\x9b31mred", "\u202edlog", "\r0 boxes differ"))
    report = config_wire.Reported(0, 1, "", r.choice(("refused", "rolled_back")), said, AT, "ntp", (said, said))
    return [("config/reported", config_wire.reported_encoded(report)),
            ("hello", wire.encoded(wire.Hello((), f"s{said}"[:60], software=said))),
            ("open", wire.encoded((wire.OpenOrder(f"N{said}"[:32], f"w{said}"[:32], f"a{said}"[:60], 900, 3, AT),))),
            ("cmd/res", cmd_wire.answer_encoded(cmd_wire.CmdAnswer(HOSTILE, cloud.asked[0], False, error=said, name="busy"[:4])))]


# What is signed: records, batches, questions ------------------------------------------------------------------------------------

def record(r: random.Random, cloud: Cloud, seq: int, prev: str, jid: str, body: bytes, kind: bytes = b'"sale"') -> str:
    at = r.choice((AT, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"))
    head = (f'{{"v":1,"box":"{HOSTILE}","jid":"{jid}","seq":{seq},"prev":"{prev}","at":"{at}","clk":"ntp","boot":"b",'
            f'"mono_ms":{r.choice((1, 2**53 - 1))},"kind":')
    return cloud.signed(head.encode() + kind + b',"sum":{"sales_fen":0,"refunds_fen":0,"count":0},"body":' + body + b"}")


def batched(jid: str, first: int, tokens: list[str], enc: wire.Encoding = "plain") -> bytes:
    return wire.batch_encoded(wire.Batch(jid, first, first + len(tokens) - 1, digest(tokens[-1]), tuple(tokens)), enc)


def odd_bodies(r: random.Random, cloud: Cloud) -> list[Message]:
    """Records of a fresh journal, well signed, that say what no till says; of each kind that the cloud reads."""
    jid, tokens, prev = jid_of(r), [], EMPTY_DIGEST
    for seq in range(1, r.randint(2, 8)):
        odd = r.choice(ODD[:4] + ODD[6:13])
        kind, body = r.choice((
            (b'"sale"', b'{"order_no":%s,"amount_fen":1,"lines":[],"tenders":[{"method":"wechat","amount_fen":1,"order_no":%s}]}'),
            (b'"refund"', b'{"order_no":%s,"refund_no":%s,"amount_fen":1,"method":"wechat","cause":"x","paid_no":"P"}'),
            (b'"lease"', b'{"lease":%s,"order_no":"N","begun":[{"paid_no":%s,"refund_no":"R","amount_fen":1}]}'),
            (b'"key"', b'{"jwk":{"crv":"P-256","kty":"EC","x":%s,"y":%s}}'), (b'"key"', b'{"jwk":[%s,%s]}'),
            (b'"journal"', b'{"after":%s,"x":%s}'), (b'"clock"', b'{"anchors":%s,"boot":%s}')))
        tokens.append(record(r, cloud, seq, prev, jid, body % (odd, odd), kind))
        prev = digest(tokens[-1])
    return [("up", batched(jid, 1, tokens))]


def odd_heads(r: random.Random, cloud: Cloud) -> list[Message]:
    """A batch whose header or lines are odd."""
    cloud.chain.add()
    good = batched(cloud.chain.jid, len(cloud.chain.tokens), cloud.chain.tokens[-1:], r.choice(wire.ENCODINGS))
    head, _, lines = good.partition(b"\n")
    cloud.chain.tokens.pop()
    places = [m.span(1) for m in re.finditer(rb':("[^"]*"|\d+)', head)]
    at, end = r.choice(places)
    how = r.randrange(4)
    if how == 0:
        return [("up", head[:at] + r.choice(ODD) + head[end:] + b"\n" + lines)]
    if how == 1:
        return [("up", head + b"\n" + lines[:r.randrange(len(lines))])]
    if how == 2:
        return [("up", head.replace(b'"enc":"', b'"enc":"zlib","x":"') + b"\n" + r.randbytes(r.randrange(2_000)))]
    return [("up", head + b"\n" + r.randbytes(len(lines)))]


def forks(r: random.Random, cloud: Cloud) -> list[Message]:
    """Another branch at a number that is committed, and one far above what is."""
    n = len(cloud.chain.tokens)
    if n < 3:
        cloud.chain.grow(3)
        return [("up", wire.batch_encoded(cloud.chain.batch(1, 3)))]
    at = r.randint(2, n)
    other = record(r, cloud, at, digest(cloud.chain.tokens[at - 2]), cloud.chain.jid, b'{"n":%d}' % r.randrange(10**9), b'"drawer"')
    far = record(r, cloud, 2**53, "x" * 43, cloud.chain.jid, b"{}", b'"drawer"')
    return [("up", batched(cloud.chain.jid, at, [other])), ("up", batched(cloud.chain.jid, 2**53, [far]))]


def many_journals(r: random.Random, cloud: Cloud) -> list[Message]:
    made = []
    for _ in range(20):
        jid = jid_of(r)
        made.append(("up", batched(jid, 1, [record(r, cloud, 1, EMPTY_DIGEST, jid, b"{}", b'"boot"')])))
    return made


def questions(r: random.Random, cloud: Cloud) -> list[Message]:
    """Questions, well signed, about nothing, about everything, or in another's name."""
    body = json.dumps({"box": r.choice((HOSTILE, WITNESS, "x")), "id": r.choice(("a" * 64, "", "x\x00")), "verb": r.choice(
        ("sale_by_order", "renew", "sh")), "order_no": r.choice(("0" * 20, "N", "")), "csr": r.choice(("", "A" * 64, "A" * 1366))})
    return [("ask", wire.jws_encoded("till-ask+jws", body.encode(), cloud.key.kid, cloud.key.sign))]


def doubled_and_turned(r: random.Random, cloud: Cloud) -> list[Message]:
    """Good batches, some twice, in any order: nothing of them is lost by it."""
    first = len(cloud.chain.tokens) + 1
    cloud.chain.grow(6)
    batches = [("up", wire.batch_encoded(cloud.chain.batch(n, n + 1))) for n in (first, first + 2, first + 4)]
    batches += r.sample(batches, 2)
    r.shuffle(batches)
    return batches


def clock_jumps(r: random.Random, cloud: Cloud) -> list[Message]:
    """The cloud's own clock is elsewhere for a while."""
    cloud.now = r.choice(("1970-01-01T00:00:00+00:00", "2019-02-28T23:59:59+08:00", "2026-07-14T09:26:54+08:00",
                          "2038-01-19T03:14:08Z", "2099-12-31T23:59:59+14:00", "9999-12-30T00:00:00+00:00"))
    return [valid(r, cloud), *doubled_and_turned(r, cloud)]


ATTACKS: tuple[Attack, ...] = (
    odd_value, odd_value, odd_value, odd_key, spoilt, elsewhere, absurd_numbers, ends_that_jump, full_reports, terminal, odd_bodies,
    odd_bodies, odd_heads, forks, many_journals, questions, doubled_and_turned, clock_jumps)


@contextlib.contextmanager
def heard() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        yield out


def seen_by_a_person(cloud: Cloud) -> str:
    """What the commands of the cloud show of it, put together."""
    with heard() as out:
        for words in (["config", "status"], ["cmd", "list"], ["verify"], ["group", "list"], ["dates", HOSTILE],
                      ["settle", HOSTILE, "--config", str(cloud.folder / "settle.toml")]):
            fleet_main([*words, "--store", cloud.where])
    return out.getvalue()


def played(seed: int, count: int, where: str, folder: Path) -> dict[str, Any]:
    """Throw `count` attacks; what came of it."""
    dice, cloud = random.Random(seed), Cloud(where, folder)
    raised: list[str] = []
    kinds: Counter[str] = Counter()
    slow_ms: dict[str, float] = {}
    waited = alarms_max = 0
    for n in range(count):
        attack = ATTACKS[n % len(ATTACKS)] if n < 2 * len(ATTACKS) else dice.choice(ATTACKS)
        kinds[attack.__name__] += 1
        messages = attack(dice, cloud)
        begun = time.perf_counter()
        for what in (lambda: cloud.together(messages), cloud.ticks):    # noqa: B023 - called at once
            try:
                what()
            except Exception as why:  # noqa: BLE001 - what an attack may bring about is what is looked for
                raised.append(f"{attack.__name__} {n}: {type(why).__name__}: {str(why)[:200]}")
        slow_ms[attack.__name__] = max(slow_ms.get(attack.__name__, 0), (time.perf_counter() - begun) * 1000)
        cloud.now = AT
        if not cloud.served():
            waited += 1
    cloud.together([("up", wire.batch_encoded(cloud.chain.batch(max(1, len(cloud.chain.tokens) - 49), len(cloud.chain.tokens))))])
    alarms_max = max(Counter(alarm[0] for alarm in cloud.store.alarms()).values(), default=0)
    told = cloud.said(HOSTILE, "hello", cloud.hello(cloud.chain, "last"))
    ack = wire.ack_decoded(told[-1][1], {cloud.ack.kid: public_verifier(cloud.ack.jwk)})
    cloud.now = "2026-07-14T10:26:53+08:00"
    seen = seen_by_a_person(cloud)
    with cloud.store.database.transaction():
        Rollouts(cloud.store.database).configs.put_layer(EVERYONE, {"shop_en": "Corner two"}, {}, "li", cloud.now)
        Rollouts(cloud.store.database).push(None, [HOSTILE, WITNESS], "li", cloud.now)
    documents = sorted({parcel.topic for parcel in cloud.ticks() if parcel.topic.endswith("config/desired")})
    result = {"attacks": count, "kinds": len(kinds), "raised": raised, "witness_waited": waited,
              "witness_whole": cloud.store.chain(WITNESS, cloud.witness.jid) == cloud.witness.tokens,
              "own_records_lost": len(cloud.chain.tokens) - ack.upto if ack.jid == cloud.chain.jid else -1,
              "configured": len(documents), "hostile_text": sorted({repr(m) for m in CONTROL.findall(seen)}),
              "forged_lines": seen.count("\nbox-9 "), "alarms_of_one_box": alarms_max, "rows": cloud.rows(),
              "slowest_ms": round(max(slow_ms.values())), "slowest": max(slow_ms, key=lambda name: slow_ms[name])}
    cloud.store.close()
    return result


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cloud_attacks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.store == "postgresql":
            from sim.postgres import Postgres
            where = stack.enter_context(Postgres()).database()
        else:
            where = str(folder / "store.db")
        told = played(args.seed, args.count, where, folder)
    print(json.dumps(told) if args.json else "\n".join(f"{name:<18} {value}" for name, value in told.items()))
    return 0 if well(told) else 1


def well(told: dict[str, Any]) -> bool:
    return (not told["raised"] and not told["witness_waited"] and told["witness_whole"] and told["own_records_lost"] == 0
            and told["configured"] == 2 and not told["hostile_text"] and not told["forged_lines"]
            and told["alarms_of_one_box"] <= 1_000)


if __name__ == "__main__":
    sys.exit(main())
