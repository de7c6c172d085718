"""A hundred tamperings of each kind, each found and named by the verifier or the collector; a thousand clean chains, and no alarm.

What the verifier sees in a file is asked of it; what a chain alone cannot show (a cut tail, a clone, a backup put back) is asked of
the collector, which holds the heads.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from device.mqtt import topics, wire
from device.mqtt.wire import Ack, Hello, JournalHead
from device.store_forward.es256 import public_verifier
from device.store_forward.token import b64, digest, parse
from device.store_forward.verify import verify
from fleet.records.collector import Clerk
from fleet.records.proof import defects
from fleet.records.store import Store
from tests.chains import Made, Signer, sale
from tests.record_chain import Chain, Key

TIMES, CLEAN = 100, 1_000
ONE, TWO, CLOUD = Signer(1), Signer(2), Key()
KEYS = {ONE.kid: public_verifier(ONE.jwk)}


def jid_of(dice: random.Random) -> str:
    return b64(dice.randbytes(16))


def grown(dice: random.Random, count: int, signer: Signer = ONE, **given: object) -> Made:
    """A day of a box: sales, refunds, drawers and restarts, as they come."""
    made, boot = Made(signer), 1
    jid = given.pop("jid", None) or jid_of(dice)
    for n in range(count):
        kind = dice.choice(("sale", "sale", "sale", "refund", "drawer", "boot")) if n else "boot"
        boot += kind == "boot"
        amount = dice.randint(1, 5_000)
        body = sale(amount) if kind == "sale" else {"amount_fen": amount} if kind == "refund" else {"n": n}
        made.add(kind, body, jid=jid, boot=f"b{boot}", **given)
    return made


# What a thief of the file does -------------------------------------------------------------------------------------------

def modified(dice: random.Random, tokens: list[str]) -> list[str]:
    at = dice.randrange(len(tokens))
    place = dice.randrange(len(tokens[at]))
    letter = dice.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".replace(tokens[at][place], ""))
    return [*tokens[:at], tokens[at][:place] + letter + tokens[at][place + 1:], *tokens[at + 1:]]


def deleted(dice: random.Random, tokens: list[str]) -> list[str]:
    at = dice.randrange(len(tokens) - 1)              # the last one is a cut tail: below
    return tokens[:at] + tokens[at + 1:]


def inserted(dice: random.Random, tokens: list[str]) -> list[str]:
    """A record of this very key, out of another journal of the box."""
    at = dice.randrange(1, len(tokens) + 1)
    return [*tokens[:at], dice.choice(grown(dice, 8).tokens[1:]), *tokens[at:]]


def swapped(dice: random.Random, tokens: list[str]) -> list[str]:
    one, two = sorted(dice.sample(range(len(tokens)), 2))
    return [*tokens[:one], tokens[two], *tokens[one + 1:two], tokens[one], *tokens[two + 1:]]


def repeated(dice: random.Random, tokens: list[str]) -> list[str]:
    at = dice.randrange(len(tokens))
    again = dice.randrange(at + 1, len(tokens) + 1)
    return [*tokens[:again], tokens[at], *tokens[again:]]


def other_key(dice: random.Random, tokens: list[str]) -> list[str]:
    return grown(dice, len(tokens), TWO).tokens


def other_box(dice: random.Random, tokens: list[str]) -> list[str]:
    at = dice.randrange(1, len(tokens))
    strange = grown(dice, len(tokens), box="box-2").tokens
    return [*tokens[:at], strange[at], *tokens[at + 1:]]


def cut_start(dice: random.Random, tokens: list[str]) -> list[str]:
    return tokens[dice.randrange(1, len(tokens)):]


UNREADABLE = {"NOT_A_TOKEN", "BAD_HEADER", "BAD_PAYLOAD", "KEY_TWICE", "KEY_ORDER", "AMOUNT_NOT_INTEGER", "BAD_SIGNATURE",
              "UNKNOWN_KEY"}
IN_A_FILE: dict[Callable[[random.Random, list[str]], list[str]], set[str]] = {
    modified: UNREADABLE, deleted: {"SEQ_GAP"}, inserted: {"JID_CHANGED_WITHOUT_AFTER"}, swapped: {"SEQ_GAP"},
    repeated: {"SEQ_REPEATED"}, other_key: {"UNKNOWN_KEY"}, other_box: {"BOX_CHANGED"}, cut_start: {"SEQ_GAP"},
}


@pytest.mark.parametrize("tampering", IN_A_FILE, ids=lambda tampering: tampering.__name__)
def test_the_verifier_names_it(tampering):
    for seed in range(TIMES):
        dice = random.Random(f"{tampering.__name__} {seed}")
        tokens = grown(dice, dice.randint(5, 12)).tokens
        found = [defect.name for defect in verify(tampering(dice, tokens), dict(KEYS))]
        assert found and found[0] in IN_A_FILE[tampering], (seed, found)


# What only he sees who holds the heads -----------------------------------------------------------------------------------

class Cloud:
    """A collector's desk over a store in memory."""

    def __init__(self, *jwks: dict) -> None:
        self.store = Store(":memory:", jwks)
        self._clerk = Clerk(self.store, "shop", CLOUD.kid, CLOUD.sign, lambda: "2026-07-14T09:26:53+08:00")

    def up(self, chain: Chain, first: int, last: int) -> Ack:
        return self._say("up", wire.batch_encoded(chain.batch(first, last)))

    def hello(self, jid: str, tokens: list[str]) -> Ack:
        head = JournalHead(jid, 1, len(tokens) + 1, digest(tokens[-1]) if tokens else "")
        return self._say("hello", wire.encoded(Hello((head,), "session")))

    def _say(self, name: str, payload: bytes) -> Ack:
        (_, raw), = self._clerk.handle([(topics.of_box("shop", "box-1", name), payload)])
        return wire.ack_decoded(raw, {CLOUD.kid: public_verifier(CLOUD.jwk)})

    @property
    def alarms(self) -> set[str]:
        return {name for _, _, _, name, _ in self.store.alarms()}


def test_a_cut_tail_is_a_rollback_to_the_collector_and_a_defect_of_a_cut_store():
    key = Key()
    for seed in range(TIMES):
        dice = random.Random(seed)
        cloud, chain = Cloud(key.jwk), Chain(key, jid=jid_of(dice)).grow(dice.randint(4, 12))
        cloud.up(chain, 1, len(chain.tokens))
        left = dice.randrange(len(chain.tokens))
        assert cloud.hello(chain.jid, chain.tokens[:left]).verdict == "rollback", seed
        cloud.store._db.execute("DELETE FROM record WHERE seq > ?", (left,))
        assert "GAP" in {name for _, _, _, name, _ in defects(cloud.store)}, seed


def test_a_clone_of_box_and_key_is_a_fork():
    key = Key()
    for seed in range(TIMES):
        dice = random.Random(seed)
        cloud, chain = Cloud(key.jwk), Chain(key, jid=jid_of(dice)).grow(dice.randint(1, 8))
        clone = Chain(key, jid=chain.jid)
        clone.tokens, clone.sum = list(chain.tokens), dict(chain.sum)
        common = len(chain.tokens)
        for one in (chain, clone):                    # both sell on: the same numbers, other goods
            for n in range(dice.randint(1, 5)):
                one.add("sale", {"order_no": f"{one is clone}{n:018d}", "amount_fen": dice.randint(1, 999)})
        sides = [chain, clone]
        dice.shuffle(sides)
        assert cloud.up(sides[0], 1, len(sides[0].tokens)).verdict == "ok"
        first = dice.choice((1, common + 1))
        assert cloud.up(sides[1], first, len(sides[1].tokens)).verdict == "fork" and "Fork" in cloud.alarms, seed


def test_a_backup_put_back_is_named_at_hello_and_at_its_first_record():
    key = Key()
    for seed in range(TIMES):
        dice = random.Random(seed)
        cloud, chain = Cloud(key.jwk), Chain(key, jid=jid_of(dice)).grow(dice.randint(3, 12))
        cloud.up(chain, 1, len(chain.tokens))
        left = dice.randrange(1, len(chain.tokens))
        back = Chain(key, jid=chain.jid)
        back.tokens, back.sum = chain.tokens[:left], {"sales_fen": 100 * left, "refunds_fen": 0, "count": left}
        assert cloud.hello(back.jid, back.tokens).verdict == "rollback", seed
        back.add("sale", {"order_no": "AFTER-THE-BACKUP", "amount_fen": 7})
        assert cloud.up(back, left + 1, left + 1).verdict == "fork" and "Fork" in cloud.alarms, seed


# And nobody else is accused ----------------------------------------------------------------------------------------------

def test_a_thousand_clean_chains_raise_no_alarm():
    for seed in range(CLEAN):
        dice = random.Random(seed)
        made = grown(dice, dice.randint(1, 10))
        if seed % 3 == 0:                             # a new record key
            made.add("key", {"jwk": TWO.jwk}, jid=_jid(made)).add(signer=TWO, jid=_jid(made))
        if seed % 5 == 0:                             # and a new journal
            made = _renewed(dice, made)
        assert list(verify(made.tokens, dict(KEYS))) == [], seed


def test_a_hundred_clean_chains_pass_the_collector():
    key = Key()
    for seed in range(TIMES):
        cloud, dice = Cloud(key.jwk), random.Random(seed)
        chain = Chain(key, jid=jid_of(dice)).grow(dice.randint(1, 12))
        at = 0
        while at < len(chain.tokens):
            last = min(len(chain.tokens), at + dice.randint(1, 5))
            assert cloud.up(chain, max(1, at + 1 - dice.randint(0, 2)), last).verdict == "ok"      # some of it again
            at = last
        assert cloud.hello(chain.jid, chain.tokens).verdict == "ok"
        assert cloud.alarms == set() and defects(cloud.store) == [] and cloud.store.quarantined() == []


def _jid(made: Made) -> str:
    return parse(made.tokens[0]).payload.jid


def _renewed(dice: random.Random, made: Made) -> Made:
    made.tokens += Made(made.signer).add(jid=jid_of(dice), body={"after": digest(made.tokens[-1])}).tokens
    return made
