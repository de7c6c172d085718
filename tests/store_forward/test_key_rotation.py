"""Another record key: made, introduced by a `key` record under the old one, used from then on; then the old one is destroyed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device.__main__ import main
from device.drivers.signer.file import FileSigner
from device.errors import KeyMissing
from device.mqtt.wire import Batch
from device.store_forward.es256 import public_verifier
from device.store_forward.token import digest, parse
from device.store_forward.verify import verify
from device.txn import facts as wire
from device.txn.effects import DropKey, Effect, MakeKey, SignRecord, TrySigner
from device.txn.inputs import Asked, KeyGone, KeyReady, Signed, Started
from device.txn.show import state
from fleet.records.store import Store
from tests import ROOT
from tests.counter import TEA, Counter
from tests.store_forward import test_record_key, test_signer
from tests.store_forward.test_token import GOOD

made, token, box = test_signer.made, test_signer.token, test_record_key.box
SIGNERS = (SignRecord, TrySigner, MakeKey, DropKey)


def asked(signer, effect: Effect):
    return asyncio.run(signer.do(effect))


# The signers

def test_the_next_key_is_made_once_and_signs_when_it_is_asked_to(made):
    signer = made()
    old = signer.kid
    ready = asked(signer, MakeKey(old))
    assert isinstance(ready, KeyReady) and ready == asked(made(old), MakeKey(old)) and ready.kid != old
    assert parse(asked(signer, SignRecord(1, GOOD, old)).token).kid == old
    signed = asked(signer, SignRecord(2, GOOD, ready.kid))
    assert isinstance(signed, Signed) and parse(signed.token).kid == signer.kid == ready.kid
    parsed, check = parse(signed.token), public_verifier(json.loads(ready.jwk))
    assert check(parsed.signing_input, parsed.signature)
    assert made(old).kid == old and made(ready.kid).kid == ready.kid             # a start finds the one that the journal names


def test_the_old_key_is_destroyed_and_the_new_one_stays(made):
    signer = made()
    old, ready = signer.kid, asked(signer, MakeKey(signer.kid))
    asked(signer, SignRecord(1, GOOD, ready.kid))
    for _ in range(2):                                                           # a lost answer is asked for again
        assert asked(signer, DropKey(old, ready.kid)) == KeyGone(old)
    with pytest.raises(KeyMissing):
        made(old)
    assert made(ready.kid).kid == made().kid == ready.kid
    assert asked(made(ready.kid), MakeKey(ready.kid)).kid not in (old, ready.kid)


def test_a_token_that_lost_its_power_between_the_halves_of_a_key_is_tidied(token):
    from pkcs11 import Attribute, ObjectClass
    signer = test_signer.by_token(token)
    old, ready = signer.kid, asked(signer, MakeKey(signer.kid))
    signer._pairs[old].private.destroy()
    signer._drop()
    assert asked(signer, DropKey(old, ready.kid)) == KeyGone(old)
    left = list(signer._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))
    assert len(left) == 1 and signer.kid == ready.kid


def test_a_key_that_does_not_follow_destroys_nothing(made):
    signer = made()
    old = signer.kid
    asked(signer, MakeKey(old))
    asked(signer, DropKey(old, "A" * 43))
    assert made(old).kid == old


# The core

class Till(Counter):
    """A counter with a real signer over `path`; `dies_at` counts the signer's answers: before that one is heard the power is cut,
    with `kept` just after it was.  `steps` counts them all."""

    seed = "AAAAAAAAAAAAAAAAAAAAAA"

    def __init__(self, path: Path, dies_at: int = 0, kept: bool = False) -> None:
        self.path, self.dies_at, self.kept, self.steps, self.keys = path, dies_at, kept, 0, {}
        super().__init__()

    def start_up(self) -> None:
        super_tell, self.waiting = self.tell, []
        self.box = type(self).boxed(self)
        self.running, self.boots, self.mono_ms = set(), self.boots + 1, 0
        self.signer = FileSigner(self.path, self.box.books.chain.kid)
        self.keys[self.signer.kid] = self.signer.jwk
        super_tell(Started(f"boot{self.boots}", "test", self.terms, self.seed, self.signer.kid))

    def boxed(self):
        from device.box import Box
        return Box(self.journal)

    def _answer(self, effect: Effect) -> None:
        if isinstance(effect, SIGNERS):
            self.waiting.append(effect)
        else:
            super()._answer(effect)

    def work(self) -> None:
        """The signer does what it is asked for until nothing is left, dying on the way if it must."""
        while self.waiting:
            effect = self.waiting.pop(0)
            if effect not in self.running:
                continue
            self.steps += 1
            dies = self.steps == self.dies_at
            answer = asked(self.signer, effect)
            if not dies or self.kept:
                self.tell(answer)
            if dies:
                self.journal.cut()
                self.start_up()

    def sell(self) -> None:
        self.scan(TEA)
        self.press("CASH")
        self.work()

    def rotate(self, id: str = "c-1"):
        told = self.tell(Asked(id, "rotate key", by="li:admin")).told
        self.work()
        return told

    def tokens(self) -> list[str]:
        self.journal.sync()
        return [held for row in self.journal.durable for _, held in wire.tokens_of(row.facts)]


def test_a_key_record_under_the_old_key_introduces_the_new_one(tmp_path):
    till = Till(tmp_path / "record.key")
    first = till.signer.jwk
    till.sell()
    assert till.rotate().ok
    till.sell()
    records = [parse(held) for held in till.tokens()]
    at = next(n for n, record in enumerate(records) if record.payload.kind == "key")
    body = json.loads(bytes(records[at].payload.body))
    assert {record.kid for record in records[:at + 1]} == {first["kid"]}
    assert {record.kid for record in records[at + 1:]} == {body["kid"]} == {till.signer.kid} and body["jwk"]["crv"] == "P-256"
    assert not list(verify(till.tokens(), {first["kid"]: public_verifier(first)}))
    assert os.listdir(tmp_path) == ["record.key"] and FileSigner(tmp_path / "record.key").kid == body["kid"]
    store, tokens, jid = Store(":memory:", [first]), till.tokens(), till.box.books.chain.jid   # the cloud knew the first key
    with store.transaction():
        taken = store.take("box-1", Batch(jid, 1, len(tokens), digest(tokens[-1]), tuple(tokens)), "2026-09-01T10:00:00+08:00")
    assert taken.verdict == "ok" and store.guard("box-1", jid) == (len(tokens), digest(tokens[-1]))


def test_a_power_cut_at_any_step_leaves_one_valid_key_and_one_change(tmp_path):
    """Every answer of the signer in turn, the power cut before it is heard and just after: one whole chain, one `key` record."""
    def lived(folder: Path, **death) -> Till:
        folder.mkdir()
        till = Till(folder / "record.key", **death)
        till.work()
        till.sell()
        first = dict(till.signer.jwk)
        till.rotate()
        till.work()
        till.sell()
        kinds = [parse(held).payload.kind for held in till.tokens()]
        assert kinds.count("key") == 1 and kinds.count("sale") == 2, (death, kinds)
        assert not list(verify(till.tokens(), {first["kid"]: public_verifier(first)})), death
        assert os.listdir(folder) == ["record.key"] and FileSigner(folder / "record.key").kid == till.box.books.chain.kid
        assert not (till.box.books.key_old or till.box.books.key_next or till.box.books.key_wished)
        return till
    steps = lived(tmp_path / "whole").steps
    assert steps > 6
    for n in range(1, steps + 1):
        for kept in (False, True):
            assert lived(tmp_path / f"{n}-{kept}", dies_at=n, kept=kept).boots == 2


def test_one_change_at_a_time_and_the_same_command_once(tmp_path):
    till = Till(tmp_path / "record.key")
    till.work()
    assert till.tell(Asked("c-1", "rotate key", by="li:admin")).told.ok
    assert till.tell(Asked("c-2", "rotate key", by="li:admin")).told.name == "key"
    till.work()
    kid = till.signer.kid
    assert till.rotate("c-1").ok and till.signer.kid == kid                      # said before, done before
    assert till.rotate("c-3").ok and till.signer.kid != kid


def test_a_key_that_cannot_be_made_is_said_and_the_old_one_goes_on(tmp_path):
    till = Till(tmp_path / "record.key")
    (tmp_path / "record.key.next").write_bytes(b"not a key")
    (tmp_path / "record.key.next").chmod(0o600)
    till.rotate()
    till.sell()
    assert state(till.box.books, till.box.desk, 0)["health"]["record_key"] == "stuck" and not till.box.books.broken
    (tmp_path / "record.key.next").unlink()
    till.waiting = [effect for effect in till.running if isinstance(effect, MakeKey)]
    till.work()
    till.sell()
    assert "record_key" not in state(till.box.books, till.box.desk, 0)["health"]
    assert [parse(held).payload.kind for held in till.tokens()].count("key") == 1


# By hand

def test_the_command_is_fulfilled_by_the_next_start_once(box, capsys):
    folder = box.parent / "box"
    old = FileSigner(folder / "record.key").kid
    assert main(["key", "rotate", str(box)]) == 0 and old in capsys.readouterr().out
    for _ in range(2):
        run = subprocess.Popen([sys.executable, "-m", "device", "run", "--config", str(box)], cwd=ROOT, stderr=subprocess.PIPE,
                               text=True)
        try:
            assert run.stderr is not None
            wanted = {"journal=", "KeyDropped" if FileSigner(folder / "record.key").kid == old else "RecordSigned"}
            for line in run.stderr:
                wanted -= {word for word in wanted if word in line}
                if not wanted:
                    break
        finally:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=30)
        assert run.returncode == 0
    new = FileSigner(folder / "record.key").kid
    exported = subprocess.run([sys.executable, "-m", "device", "journal", str(folder / "journal.db"), "export"], cwd=ROOT,
                              capture_output=True, text=True, check=True).stdout.split()
    kinds = [(parse(held).payload.kind, parse(held).kid) for held in exported]
    assert [kid for kind, kid in kinds if kind == "key"] == [old] and kinds[-1] == ("boot", new)
    assert not (folder / "record.key.next").exists() and not (folder / "key.leave").exists()
