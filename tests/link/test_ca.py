"""The authority: what it signs, what it refuses, what its list says, and that a cut leaves the old list or the new one."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from device.mqtt import csr_wire, topics
from fleet import broker_files, files
from fleet.__main__ import main
from fleet.identity.ca import Authority, CaError
from fleet.keys import SigningKey, public_keys

PEM = serialization.Encoding.PEM


def request(name: str, key: Any = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return made.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()).public_bytes(PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ca", "shop")


def revoked(authority: Authority) -> set[str]:
    return {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(authority.crl_pem)}


def test_a_certificate_holds_for_one_name_one_purpose_and_no_authority(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue(request("shop/box-1"), "shop/box-1")
    made, root = x509.load_pem_x509_certificate(pem), x509.load_pem_x509_certificate(authority.ca_pem)
    assert made.subject.rfc4514_string() == "CN=shop/box-1"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert datetime.timedelta(days=365) <= made.not_valid_after_utc - made.not_valid_before_utc <= datetime.timedelta(days=366)
    assert made.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=23)
    limits = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical and limits.value == x509.BasicConstraints(ca=True, path_length=0)
    assert root.not_valid_after_utc - root.not_valid_before_utc > datetime.timedelta(days=3650)
    (tmp_path / "box.pem").write_bytes(pem)
    said = subprocess.run(["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-crl_check", "-CAfile",
                           authority.folder / "ca.pem", "-CRLfile", authority.folder / "crl.pem", tmp_path / "box.pem"],
                          capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


def test_the_certificate_of_a_record_key_opens_no_line(authority: Authority, tmp_path: Path) -> None:
    for use in ("record", "encryption"):
        (tmp_path / "one.pem").write_bytes(authority.issue(request("shop/box-1"), "shop/box-1", use=use))
        said = subprocess.run(["openssl", "verify", "-purpose", "sslclient", "-CAfile", authority.folder / "ca.pem",
                               tmp_path / "one.pem"], capture_output=True, text=True)
        assert said.returncode != 0 and "purpose" in said.stderr, use


def test_a_request_in_our_own_bytes_is_signed(authority: Authority, tmp_path: Path) -> None:
    key = SigningKey(tmp_path / "key.pem")
    raw = csr_wire.pem(csr_wire.request("box-1", key.jwk, key.sign))        # it does not know its tenant yet
    made = x509.load_pem_x509_certificate(authority.issue(raw, "shop/box-1"))
    assert made.public_key() == serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None).public_key()


@pytest.mark.parametrize(("name", "use", "sentence"), [
    ("shop/box+1", "box", "a-z"), ("shop/#", "box", "a-z"), ("shop/$SYS", "box", "a-z"), ("shop/Box-1", "box", "a-z"),
    ("shop/box-1/x", "box", "a-z"), ("shop/", "box", "a-z"), ("shop", "box", "no name of tenant shop"),
    ("other/box-1", "box", "no name of tenant shop"), ("shop/box-1\n", "box", "a-z"), ("shop/_collector/c1", "box", "a-z"),
    ("shop/box-1", "collector", "no collector"), ("shop/_collector/+", "collector", "no collector"),
    ("shop/box-1", "service", "no service"), ("shop/box-1", "broker", "no use"), ("shop/box-1", "ca", "no use"),
])
def test_a_name_that_could_be_another_topic_is_refused(authority: Authority, name: str, use: str, sentence: str) -> None:
    with pytest.raises(CaError, match=sentence):
        authority.issue(request("shop/box-1"), name, use=use)
    assert authority.issued() == []


def test_a_name_longer_than_a_certificate_holds_is_refused(tmp_path: Path) -> None:
    authority = Authority.made(tmp_path / "ca", "s" * 32)
    with pytest.raises(CaError, match="65 characters"):
        authority.issue(request("box"), f"{'s' * 32}/{'b' * 32}")


@pytest.mark.parametrize(("raw", "sentence"), [
    (b"rubbish", "cannot be read"), (request("shop/box-2"), "it is of shop/box-2"), (request("box-2"), "it is of box-2"),
    (request("shop/box-1", ec.generate_private_key(ec.SECP384R1())), "not one of P-256"),
    (request("shop/box-1", rsa.generate_private_key(65537, 2048)), "not one of P-256"),
    (request("shop/box-1", ed25519.Ed25519PrivateKey.generate()), "not one of P-256"),
])
def test_a_request_that_does_not_fit_is_refused(authority: Authority, raw: bytes, sentence: str) -> None:
    with pytest.raises(CaError, match=sentence):
        authority.issue(raw, "shop/box-1")


def test_a_request_that_its_key_did_not_sign_is_refused(authority: Authority, tmp_path: Path) -> None:
    ours, theirs = SigningKey(tmp_path / "a.pem"), SigningKey(tmp_path / "b.pem")
    with pytest.raises(CaError, match="not signed by its own key"):
        authority.issue(csr_wire.pem(csr_wire.request("box-1", theirs.jwk, ours.sign)), "shop/box-1")


def test_what_is_revoked_stands_on_the_list_and_what_came_later_does_not(authority: Authority) -> None:
    authority.issue(request("shop/box-1"), "shop/box-1")
    authority.issue(request("shop/box-1"), "shop/box-1", use="record")
    authority.issue(request("shop/box-2"), "shop/box-2")
    assert revoked(authority) == set()
    assert authority.revoke("shop/box-1") == 2 and authority.revoke("shop/box-1") == 0
    authority.issue(request("shop/box-1"), "shop/box-1")
    first, second, third = authority.issued("shop/box-1")
    assert revoked(authority) == {first.serial, second.serial} and third.revoked == ""
    assert authority.revoke("shop/nobody") == 0


def test_each_list_is_newer_than_the_one_before(authority: Authority) -> None:
    """Else a broker that has read both believes the older: they are told apart by whole seconds."""
    dates = [x509.load_pem_x509_crl(authority.crl_pem).last_update_utc]
    for _ in range(3):
        authority.write_crl()
        dates.append(x509.load_pem_x509_crl(authority.crl_pem).last_update_utc)
    assert dates == sorted(set(dates)) and dates[-1] < datetime.datetime.now(datetime.UTC)
    assert authority.crl_until() > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=390)


def test_a_cut_leaves_the_old_list(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.issue(request("shop/box-1"), "shop/box-1")
    before = authority.crl_pem
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("cut")))
    with pytest.raises(OSError, match="cut"):
        authority.revoke("shop/box-1")
    monkeypatch.undo()
    assert authority.crl_pem == before
    authority.write_crl()                                    # the index knew it first: any later list has it
    assert revoked(authority) == {authority.issued("shop/box-1")[0].serial}


def test_keys_are_for_the_owner_alone_and_each_has_its_own_use(authority: Authority) -> None:
    secret = {"ca.key", "ack.pem", "config.pem", "command.pem", "console.pem", "share"}
    for path in authority.folder.iterdir():
        assert (os.stat(path).st_mode & 0o077 == 0) == (path.name in secret) or path.name == "issued.db", path.name
    kids = {public_keys(authority.folder / f"{use}.jwks")[0]["kid"] for use in ("ack", "config", "command")}
    assert len(kids) == 3 and SigningKey(authority.folder / "ack.pem").kid in kids


def test_a_folder_has_one_authority_for_ever(authority: Authority, tmp_path: Path) -> None:
    again = Authority(authority.folder)
    assert (again.ca_pem, again.fingerprint, again.tenant) == (authority.ca_pem, authority.fingerprint, "shop")
    with pytest.raises(CaError, match="already"):
        Authority.made(authority.folder, "shop")
    with pytest.raises(CaError, match="no authority"):
        Authority(tmp_path)
    with pytest.raises(topics.TopicError):
        Authority.made(tmp_path / "other", "Shop")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, csr, out = tmp_path / "ca", tmp_path / "csr.pem", tmp_path / "box.pem"
    csr.write_bytes(request("shop/box-1"))
    assert main(["ca", "init", str(folder), "--tenant", "shop"]) == 0
    assert main(["ca", "broker", str(folder), "--host", "mqtt.shop.example", "--host", "192.0.2.1"]) == 0
    assert main(["ca", "broker", str(folder), "--host", "mqtt shop"]) == 2
    assert main(["ca", "issue", str(folder), "box-1", "--csr", str(csr), "--out", str(out)]) == 0
    assert main(["ca", "issue", str(folder), "_collector/c1", "--out", str(tmp_path / "c1")]) == 0
    assert main(["ca", "list", str(folder)]) == 0
    assert main(["ca", "revoke", str(folder), "box-1"]) == 0
    assert main(["ca", "revoke", str(folder), "box-9"]) == 2
    capsys.readouterr()
    assert main(["ca", "list", str(folder), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row.get("name"), row.get("use"), row.get("state")) for row in rows] == [
        ("mqtt.shop.example", "broker", "good"), ("shop/box-1", "box", "revoked"), ("shop/_collector/c1", "collector", "good"),
        (None, None, None)]
    begin, due, end = (datetime.datetime.fromisoformat(rows[0][key]) for key in ("not_before", "renewal_due", "not_after"))
    assert abs((due - begin) / (end - begin) - 2 / 3) < 1e-6
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {"tls.key", "tls.pem", "ca.pem", "share"}
    server = x509.load_pem_x509_certificate((folder / "broker.pem").read_bytes())
    assert server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == [
        "mqtt.shop.example"]


def test_the_list_tells_what_is_due(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    past = Authority.made(tmp_path / "ca", "shop", now=lambda: now - datetime.timedelta(days=300))
    past.issue(request("shop/box-1"), "shop/box-1")
    past.issue(request("shop/box-2"), "shop/box-2", days=100)
    past.issue(request("shop/box-3"), "shop/box-3", days=500)
    now_there = Authority(tmp_path / "ca")
    assert [now_there.due(f"shop/box-{n}") for n in (1, 2, 3, 4)] == [True, True, False, True]
    assert main(["ca", "list", str(tmp_path / "ca"), "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("state") for row in rows] == ["due", "over", "good", None] and rows[-1]["troubled"] == 2


def test_the_broker_is_told_only_when_something_changed(authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def systemctl(argv: list[str], check: bool) -> None:
        told.append(argv)
        if sick:
            raise subprocess.CalledProcessError(1, argv)
    sick: list[int] = []
    monkeypatch.setattr("fleet.identity.ca_tool.subprocess.run", systemctl)
    authority.broker(["mqtt.shop.example"])
    assert main(["broker", str(authority.folder), "--out", str(tmp_path / "out")]) == 0

    def refreshed(status: int = 0) -> str:
        capsys.readouterr()
        assert main(["broker", str(authority.folder), "--out", str(tmp_path / "out"), "--refresh", "--reload", "unit"]) == status
        return capsys.readouterr().out.strip()

    authority.issue(request("shop/box-1"), "shop/box-1")
    assert refreshed() == "unchanged" and told == []         # a new box is in no list
    authority.client("shop/_collector/c1", tmp_path / "c1", use="collector")
    assert refreshed() == "changed" and refreshed() == "unchanged"
    authority.revoke("shop/box-1")
    assert refreshed() == "changed" and refreshed() == "unchanged"
    assert told == [["systemctl", "reload", "unit"]] * 2
    authority.revoke("shop/_collector/c1")
    sick.append(1)
    assert refreshed(2) == "changed" and refreshed(2) == "unchanged" and len(told) == 4      # told until it listens
    sick.clear()
    assert refreshed() == "unchanged" and len(told) == 5 and refreshed() == "unchanged" and len(told) == 5
    assert "user shop/box-1\ntopic deny #" in (tmp_path / "out" / "acl").read_text()


def test_a_list_is_made_anew_long_before_its_end(authority: Authority, tmp_path: Path) -> None:
    before = authority.crl_until()
    for days, due in ((100, False), (140, True)):
        then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        later = Authority(authority.folder, now=lambda then=then: then)
        assert later.crl_due() is due
    later.broker(["mqtt.shop.example"])
    broker_files.rendered(later, tmp_path / "out")
    assert authority.crl_until() - before > datetime.timedelta(days=139)


def test_many_at_once_lose_no_certificate_of_the_index(authority: Authority) -> None:
    def one(n: int) -> None:
        Authority(authority.folder).issue(request(f"shop/box-{n}"), f"shop/box-{n}")
        if n % 2:
            Authority(authority.folder).revoke(f"shop/box-{n}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(24)))
    assert len(authority.issued()) == 24
    assert revoked(authority) == {each.serial for each in authority.issued() if int(each.name.partition("-")[2]) % 2}
