"""A code becomes an identity, once: what the desk gives, refuses and remembers, and what a box keeps through kills."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from device.doctor import tool as doctor
from device.errors import ConfigError, Outside
from device.identity import enrol
from device.identity import folder as identity
from device.mqtt import ask_wire
from device.mqtt import enrol_wire as wire
from device.mqtt.wire import WireError
from device.store_forward.token import thumbprint
from device.trusted import verifiers
from fleet.identity.enrol import Renewals, code_key
from tests import ROOT
from tests.enrol_room import ACK, COMMAND, CONFIG, Office, Shop, Stand
from tests.record_chain import Key


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "box")


def enrolled(office: Office, shop: Shop, code: wire.Code | None = None) -> wire.Identity:
    code = code or office.desk.code_for("box-1")
    config = shop.config(box=code.box)
    request = enrol.prepared(config, code)
    reply = office.desk.take(request)
    assert reply is not None
    return enrol.accepted(config, code, request, reply)


def test_a_box_is_who_its_code_says(office: Office, shop: Shop) -> None:
    with pytest.raises(ConfigError, match="box is missing"):
        shop.enrolled()
    who = enrolled(office, shop)
    config = shop.enrolled()
    assert (config.tenant, config.box, config.box_no) == ("shop", "box-1", who.box_no)
    assert (config.mqtt.host, config.mqtt.port) == ("broker.example", 8883)
    assert Path(config.mqtt.key_file).read_bytes().startswith(b"-----BEGIN PRIVATE KEY")
    assert office.authority.issued == [("shop/box-1", use) for use in ("box", "record", "encryption")]
    assert not office.authority.revoked
    for path in Path(config.identity_dir).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in Path(config.identity_dir).iterdir()) == sorted(identity.FILES)


def test_each_of_the_clouds_keys_is_believed_for_its_own_purpose_only(office: Office, shop: Shop) -> None:
    enrolled(office, shop)
    path = shop.enrolled().ack_key_file
    for purpose, key in (("ack", ACK), ("config", CONFIG), ("command", COMMAND)):
        assert list(verifiers(path, "anything", purpose)) == [key.kid]


def test_the_collector_knows_the_record_key_for_this_box_alone(office: Office, shop: Shop) -> None:
    enrolled(office, shop)
    kid = enrol.record_key(shop.enrolled()).kid
    assert kid in office.store.verifiers("box-1") and kid not in office.store.verifiers("box-2")


def test_a_code_serves_once_and_a_lost_reply_is_given_again(office: Office, shop: Shop, tmp_path: Path) -> None:
    code = office.desk.code_for("box-1")
    request = enrol.prepared(shop.config(), code)
    lost = office.desk.take(request)
    assert enrol.prepared(shop.config(), code) == request, "the same bytes, whatever happened meanwhile"
    assert office.desk.take(request) == lost
    assert len(office.authority.issued) == 3
    thief = Shop(tmp_path / "thief")
    with pytest.raises(Outside, match="used before"):
        enrolled(office, thief, code)
    assert enrol.accepted(shop.config(), code, request, lost or b"").box == "box-1"


@pytest.mark.parametrize("same", [True, False])
def test_two_desks_give_one_code_to_one_request(shop: Shop, tmp_path: Path, monkeypatch, same: bool) -> None:
    """The second desk enrols in the very moment in which the first has found the code open."""
    authority = Stand()
    one, two = (Office(tmp_path / "cloud.db", authority) for _ in range(2))
    code = one.desk.code_for("box-1")
    request = enrol.prepared(shop.config(), code)
    other = request if same else enrol.prepared(Shop(tmp_path / "thief").config(), code)
    real, first = one.desk._keys_of, []

    def meanwhile(*args):
        first.append(two.desk.take(other))
        return real(*args)
    monkeypatch.setattr(one.desk, "_keys_of", meanwhile)
    reply, _ = wire.reply_decoded(one.desk.take(request) or b"", request, code.secret)
    assert wire.reply_decoded(first[0], other, code.secret)[0].result == "enrolled" and len(authority.issued) == 3
    assert reply.result == ("enrolled" if same else "used")
    one.store.close()
    two.store.close()


def test_five_tries_kill_a_code_and_each_counts_before_it_is_looked_at(office: Office, shop: Shop) -> None:
    code = office.desk.code_for("box-1")
    guess = msgspec.structs.replace(code, secret=b"0123456789")
    wrong = enrol.prepared(shop.config(), guess)
    for _ in range(wire.TRIES):
        reply, proven = wire.reply_decoded(office.desk.take(wrong) or b"", wrong, guess.secret)
        assert reply.result == "wrong" and not proven
    right = enrol.prepared(shop.config(), code)
    reply, proven = wire.reply_decoded(office.desk.take(right) or b"", right, code.secret)
    assert reply.result == "over" and not proven and office.desk.codes()[0][4:] == (5, "over")
    with pytest.raises(Outside, match="dead"):
        enrolled(office, shop, code)


def test_a_desk_that_dies_while_it_checks_has_counted_the_try(office: Office, shop: Shop, monkeypatch) -> None:
    code = office.desk.code_for("box-1")
    request = enrol.prepared(shop.config(), code)

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt
    monkeypatch.setattr(wire, "request_holds", killed)
    with pytest.raises(KeyboardInterrupt):
        office.desk.take(request)
    assert office.desk.codes()[0][4] == 1


def test_the_fifth_try_may_be_the_right_one_and_a_week_is_the_end(office: Office, shop: Shop, tmp_path: Path) -> None:
    code = office.desk.code_for("box-1")
    wrong = enrol.prepared(Shop(tmp_path / "x").config(), msgspec.structs.replace(code, secret=bytes(10)))
    for _ in range(wire.TRIES - 1):
        office.desk.take(wrong)
    office.later(days=6, hours=23)
    enrolled(office, shop, code)
    late = office.desk.code_for("box-2")
    office.later(days=7)
    with pytest.raises(Outside, match="older than a week"):
        enrolled(office, Shop(tmp_path / "late"), late)
    assert {row[0]: row[5] for row in office.desk.codes()} == {"box-1": "used", "box-2": "expired"}


def test_a_newer_code_ends_an_older_one_of_the_same_box(office: Office, shop: Shop) -> None:
    older, newer = office.desk.code_for("box-1"), office.desk.code_for("box-1")
    with pytest.raises(Outside, match="newer one replaced"):
        enrolled(office, shop, older)
    enrolled(office, shop, newer)


def test_the_code_of_another_desk_is_answered_by_nobody(office: Office, shop: Shop) -> None:
    foreign = Office().desk.code_for("box-1")
    assert office.desk.take(enrol.prepared(shop.config(), foreign)) is None
    code = office.desk.code_for("box-1")
    with pytest.raises(WireError, match="names"):
        office.desk.take(enrol.prepared(shop.config(), code), "000000")


def test_a_box_that_is_replaced_keeps_number_and_records_and_its_old_certificates_end(office: Office, tmp_path: Path) -> None:
    old, new = Shop(tmp_path / "old"), Shop(tmp_path / "new")
    before = enrolled(office, old)
    old_kid = enrol.record_key(old.enrolled()).kid
    after = enrolled(office, new)
    assert after.box_no == before.box_no and office.authority.revoked == ["shop/box-1"]
    assert office.authority.issued[3:] == [("shop/box-1", use) for use in ("box", "record", "encryption")]
    new_kid = enrol.record_key(new.enrolled()).kid
    assert {old_kid, new_kid} <= set(office.store.verifiers("box-1"))
    assert office.desk.boxes()[0][3] == 2


def test_numbers_are_unique_and_for_ever(office: Office) -> None:
    office.desk.code_for("box-1", "00000A")
    with pytest.raises(ValueError, match="that of box box-1"):
        office.desk.code_for("box-2", "00000A")
    with pytest.raises(ValueError, match="no number changes"):
        office.desk.code_for("box-1", "00000B")
    with pytest.raises(ValueError, match="six digits"):
        office.desk.code_for("box-2", "00000U")
    office.desk.code_for("box-1", "00000A")
    office.desk.code_for("box-2")
    assert len({row[1] for row in office.desk.boxes()}) == 2


def test_a_copied_card_is_not_enrolled_as_another_box(office: Office, shop: Shop, tmp_path: Path) -> None:
    enrolled(office, shop)
    copy = Shop(tmp_path / "copy")
    shutil.copy(shop.folder / "record.key", copy.folder / "record.key")
    with pytest.raises(Outside, match="already in use by box box-1"):
        enrolled(office, copy, office.desk.code_for("box-2"))


@pytest.mark.parametrize("harm", ["same key", "not signed", "no request"])
def test_requests_that_prove_no_key_are_refused_under_proof(office: Office, shop: Shop, harm: str) -> None:
    code = office.desk.code_for("box-1")
    asked = wire.request_decoded(enrol.prepared(shop.config(), code))
    csr = {"same key": asked.record_csr, "no request": "A" * 100,
           "not signed": enrol.b64(enrol.csr_wire.request("box-1", Key().jwk, Key().sign))}[harm]
    raw = wire.request_encoded(msgspec.structs.replace(asked, tls_csr=csr), code.secret)
    reply, proven = wire.reply_decoded(office.desk.take(raw) or b"", raw, code.secret)
    assert reply.result == "refused" and proven and reply.why and not office.authority.issued
    assert enrolled(office, shop, code).box == "box-1", "the code was not used up by it"


def test_a_proven_reply_that_does_not_fit_changes_nothing(office: Office, shop: Shop) -> None:
    code = office.desk.code_for("box-1")
    request = enrol.prepared(shop.config(), code)
    who = wire.reply_decoded(office.desk.take(request) or b"", request, code.secret)[0].identity
    assert who is not None
    for wrong, sentence in (({"ca": Stand().ca_pem.decode()}, "not the one that the code names"),
                            ({"box": "box-2"}, "for box box-2"), ({"tls": who.record}, "another key"),
                            ({"tls": who.ca}, "another key"), ({"tls": "x"}, "cannot be read"),
                            ({"tenant": "other"}, "not for other/box-1")):
        reply = wire.Reply(1, code.id, "enrolled", office.wall(), msgspec.structs.replace(who, **wrong))
        with pytest.raises(Outside, match=sentence):
            enrol.accepted(shop.config(), code, request, wire.reply_encoded(reply, request, code.secret))
        assert identity.cloud_of(shop.config().identity_dir) is None
    foreign = Stand()
    foreign._subject = office.authority._subject             # a CA of the same name
    forged = foreign.issue(enrol.csr_wire.pem(wire_csr(request)), "shop/box-1", use="box").decode()
    reply = wire.Reply(1, code.id, "enrolled", office.wall(), msgspec.structs.replace(who, tls=forged))
    with pytest.raises(Outside, match="not signed by the CA"):
        enrol.accepted(shop.config(), code, request, wire.reply_encoded(reply, request, code.secret))


def wire_csr(request: bytes) -> bytes:
    from device.store_forward.token import unb64
    return unb64(wire.request_decoded(request).tls_csr)


def test_a_database_that_is_stolen_enrols_nobody(office: Office, shop: Shop, tmp_path: Path) -> None:
    code = office.desk.code_for("box-1")
    enrolled(office, shop, code)
    dump = "\n".join(office.store.database._db.iterdump())          # type: ignore[attr-defined]
    for form in (code.secret.hex(), enrol.b64(code.secret), wire.typed(code)[13:32], wire.qr_text(code)[12:28]):
        assert form not in dump
    key = code_key(tmp_path)
    assert key == code_key(tmp_path) and len(key) == 32 and (tmp_path / "enrol.key").stat().st_mode & 0o777 == 0o600


# The box's folder --------------------------------------------------------------------------------------------------

def test_a_configuration_may_name_the_broker_but_no_other_box(office: Office, shop: Shop) -> None:
    enrolled(office, shop)
    shop.toml.write_text(shop.toml.read_text() + '[mqtt]\nhost = "inside.example"\ncert_file = "old.pem"\n')
    config = shop.enrolled()
    assert config.mqtt.host == "inside.example" and config.mqtt.cert_file == f"{config.identity_dir}/tls.pem"
    shop.toml.write_text('box = "box-2"\n' + shop.toml.read_text())
    with pytest.raises(ConfigError, match="box is 'box-2', and this box was enrolled as 'box-1'"):
        shop.enrolled()
    shop.toml.write_text(shop.toml.read_text().replace('box = "box-2"', 'mqtt = 5').partition("[mqtt]")[0])
    with pytest.raises(ConfigError, match="mqtt"):
        shop.enrolled()


def test_a_record_key_that_a_journal_needs_is_not_made_anew(office: Office, shop: Shop) -> None:
    (shop.folder / "journal.db").touch()
    with pytest.raises(Outside, match="has a journal, and its record key"):
        enrol.prepared(shop.config(), office.desk.code_for("box-1"))


KILLED = """
import os, signal, sys
from device.identity import folder as identity
from device.drivers import private_file
left = int(sys.argv[2])
def counted(real):
    def call(*a, **k):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    return call
for where, name in ((os, "open"), (os, "link"), (os, "unlink"), (os, "replace"), (os, "fsync"), (os, "mkdir"), (os, "symlink"),
                    (os, "rmdir")):
    setattr(where, name, counted(getattr(where, name)))
identity.install(sys.argv[1], {name: b"new " + name.encode() for name in identity.FILES})
"""


def test_a_kill_at_any_moment_leaves_the_old_identity_or_the_new_one(tmp_path: Path) -> None:
    """Before each system call that could matter, SIGKILL: what stands is one of the two, whole, and the next one gets through."""
    link, seen = tmp_path / "identity", set()
    files = {which: {name: which + b" " + name.encode() for name in identity.FILES} for which in (b"old", b"new")}
    calls = 0
    while b"done" not in seen:
        identity.install(link, files[b"old"])
        pid = os.fork()                                      # a fork is a new process at a hundredth of the price
        if pid == 0:
            sys.argv = ["", str(link), str(calls)]
            try:
                exec(compile(KILLED, "killed", "exec"), {})  # noqa: S102
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        held = {name: (link / name).read_bytes() for name in identity.FILES}
        which = held["cloud.json"].split()[0]
        assert held == files[which], f"mixed after {calls} calls"
        seen |= {which} if os.WIFSIGNALED(status) else {b"done"}
        calls += 1
    assert seen == {b"old", b"new", b"done"} and calls > 30
    identity.install(link, files[b"new"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["identity", os.readlink(link)]), "nothing is left behind"


def test_a_folder_that_somebody_made_by_hand_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(Outside, match="no enrolment made"):
        identity.install(tmp_path / "identity", {name: b"x" for name in identity.FILES})


def findings(shop: Shop, capsys) -> dict[str, str]:
    doctor.main(["--config", str(shop.toml), "--json", "--offline"])
    return {one["code"]: one["sentence"] for one in json.loads(capsys.readouterr().out)["findings"]}


def test_the_doctor_knows_an_identity_a_late_renewal_and_one_that_cannot_be_read(office: Office, shop: Shop, capsys) -> None:
    shop.toml.write_text(shop.toml.read_text() + 'box = "box-1"\nbox_no = "00000A"\ntenant = "shop"\n')
    assert "is not enrolled" in findings(shop, capsys)["not_enrolled"]
    office.authority.ahead = -datetime.timedelta(days=256)
    code = office.desk.code_for("box-1", "00000A")
    enrolled(office, shop, code)
    assert not {"not_enrolled", "renewal_late"} & set(findings(shop, capsys))
    office.authority.ahead = -datetime.timedelta(days=259)
    enrolled(office, shop)
    assert "ends in 10" in findings(shop, capsys)["renewal_late"]
    cloud = identity.file_of(shop.enrolled(), "cloud.json")
    cloud.write_bytes(b"{")
    assert "cloud.json cannot be read" in findings(shop, capsys)["identity_unread"]
    with pytest.raises(Outside, match="enrol the box anew"):
        shop.enrolled()


# A shop without a line ---------------------------------------------------------------------------------------------

def box_command(*argv: str, given: bytes = b"") -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "device", *argv], input=given, cwd=ROOT, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_all_of_it_on_either_database(place, tmp_path: Path) -> None:
    office = Office(place())
    try:
        first, second = Shop(tmp_path / "first"), Shop(tmp_path / "second")
        code = office.desk.code_for("box-1")
        guess = msgspec.structs.replace(code, secret=bytes(10))
        assert b'"wrong"' in (office.desk.take(enrol.prepared(second.config(), guess)) or b"")
        request = enrol.prepared(first.config(), code)
        reply = office.desk.take(request)
        assert reply == office.desk.take(request) and office.desk.codes()[0][4:] == (3, "used")
        enrol.accepted(first.config(), code, request, reply or b"")
        office.later(days=1)
        with pytest.raises(ValueError, match="that of box box-1"):
            office.desk.code_for("box-2", office.desk.boxes()[0][1])
        enrolled(office, second)
        assert office.authority.revoked == ["shop/box-1"] and office.desk.boxes()[0][3] == 2
        kids = {enrol.record_key(shop.enrolled()).kid for shop in (first, second)}
        assert len(kids) == 2 and kids <= set(office.store.verifiers("box-1"))
        office.later(days=30)
        renewals, key = Renewals(office.db, office.authority, "shop"), Key()
        ask = ask_wire.Ask("box-1", "a1", "renew", csr=enrol.b64(enrol.csr_wire.request("box-1", key.jwk, key.sign)))
        with office.db.transaction():
            assert renewals.answer("box-1", ask, office.wall()).chain == renewals.answer("box-1", ask, office.wall()).chain != ""
    finally:
        office.store.close()


def test_two_files_carried_by_a_person_enrol_a_shop_without_a_line(office: Office, shop: Shop) -> None:
    code = office.desk.code_for("box-1")
    status, request, err = box_command("enrol", "request", "-", "--config", str(shop.toml), given=wire.typed(code).lower().encode())
    assert status == 0 and not err
    reply = office.desk.take(request.encode())
    status, said, err = box_command("enrol", "install", "-", "--config", str(shop.toml), given=(reply or b"") + b"\r\n")
    assert status == 0 and "enrolled: box box-1 of shop" in said and not err
    config = shop.enrolled()
    assert not Path(config.identity_dir + ".pending").exists()
    status, said, _ = box_command("key", "--config", str(shop.toml))
    assert status == 0 and json.loads(said)["box"] == "box-1"
    status, _, err = box_command("enrol", "request", wire.typed(code), "--config", str(shop.toml))
    assert status == 1 and "this is box box-1 of shop already" in err and err.count("\n") == 1


@pytest.mark.parametrize(("argv", "status", "sentence"), [
    (["enrol"], 2, "usage"),
    (["enrol", "box-1:" + "0" * 40], 2, "--broker HOST:PORT"),
    (["enrol", "request", "box-1"], 1, "begins with the name of the box"),
    (["enrol", "request", "box-1:" + "1" * 40], 1, "mistyped"),
    (["enrol", "install", "/nowhere"], 1, "no request of this box waits"),
    (["enrol", "frob", "x"], 2, "request and install"),
])
def test_what_cannot_be_done_is_said(shop: Shop, argv: list[str], status: int, sentence: str, capsys) -> None:
    assert enrol.main([*argv[1:], "--config", str(shop.toml)]) == status
    assert sentence in capsys.readouterr().err


def test_a_journal_key_and_an_identity_go_together(office: Office, shop: Shop) -> None:
    """The record key that was enrolled is the one that the daemon signs with."""
    who = enrolled(office, shop)
    from cryptography import x509
    key = x509.load_pem_x509_certificate(who.record.encode()).public_key()
    assert thumbprint(enrol.jwk_of(key)) == enrol.record_key(shop.enrolled()).kid
