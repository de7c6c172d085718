"""Every driver that a configuration can name is made, and one that cannot be says so while the rest sells."""

from __future__ import annotations

import asyncio

import pytest

from device.config import parse_toml
from device.drivers.registry import displays_of, drivers_of
from device.errors import DriverGone
from device.txn.inputs import DeviceSaid
from tests import ROOT

EXAMPLE = (ROOT / "docs/box.example.toml").read_text()


def config(_folder):
    return parse_toml(EXAMPLE, which="example")


def test_a_channel_without_its_key_file_leaves_the_till_selling(tmp_path):
    drivers = drivers_of(config(tmp_path), lambda symbol: None)
    absent = [driver for part, driver in drivers.items() if part.startswith("channel:")]
    assert absent and {"scanner", "keypad", "printer"} <= set(drivers)

    async def heard(driver):
        said = await anext(driver.inputs())
        with pytest.raises(DriverGone):
            await driver.do(object())
        return said
    for driver in absent:
        said = asyncio.run(heard(driver))
        assert isinstance(said, DeviceSaid) and said.word == "error" and said.why


@pytest.fixture(scope="module")
def pems():
    """PEM bytes by what is the matter with them; `good` and `public` are a pair."""
    import base64

    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    def private(key, lock=None):
        return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, lock or s.NoEncryption())
    key, curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    der = bytearray(key.private_bytes(s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption()))
    der[200] ^= 1                                     # inside the modulus
    damaged = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(bytes(der)) + b"-----END PRIVATE KEY-----\n"
    public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    return {"good": private(key), "public": public, "garbage": b"no key at all", "damaged": damaged, "curve": private(curve),
            "locked": private(key, s.BestAvailableEncryption(b"x"))}


@pytest.mark.parametrize("ours, theirs, why", [
    ("garbage", "public", "private key file holds no readable PEM key"), ("public", "public", "no readable PEM key"),
    ("locked", "public", "locked with a password"), ("curve", "public", "private key is not an RSA key"),
    ("damaged", "public", "private key is damaged"), ("good", "garbage", "no readable PEM public key"),
    ("good", "good", "no readable PEM public key"), ("good", "public", "")])
def test_a_wrong_key_file_is_said_at_the_start(tmp_path, pems, ours, theirs, why):
    import msgspec
    whole = config(tmp_path)
    for name, kind in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).write_bytes(pems[kind])
    channel = msgspec.structs.replace(whole.channels[0], name="wechat", mchid="1", private_key_file=str(tmp_path / "ours"),
                                      platform_key_file=str(tmp_path / "theirs"))
    driver = drivers_of(msgspec.structs.replace(whole, channels=(channel,)), lambda symbol: None)["channel:wechat"]

    async def first():
        return await anext(driver.inputs())
    if not why:
        assert type(driver).__name__ == "ChannelAccounts"
        return
    said = asyncio.run(first())
    assert said.word == "error" and why in said.why and "BEGIN" not in said.why


def test_a_wechat_whose_replies_nothing_could_prove_is_said_at_the_start(tmp_path, pems):
    import msgspec
    whole = config(tmp_path)
    (tmp_path / "ours").write_bytes(pems["good"])
    channel = msgspec.structs.replace(whole.channels[0], name="wechat", mchid="1", private_key_file=str(tmp_path / "ours"))

    def made(channel):
        return drivers_of(msgspec.structs.replace(whole, channels=(channel,)), lambda symbol: None)["channel:wechat"]

    async def first(driver):
        return await anext(driver.inputs())
    said = asyncio.run(first(made(channel)))
    assert said.word == "error" and "prove its replies" in said.why
    channel = msgspec.structs.replace(channel, api_v3_key="k" * 32)
    assert type(made(channel)).__name__ == "ChannelAccounts"
    said = asyncio.run(first(made(msgspec.structs.replace(channel, fields={"sub_appid": "wx2"}))))
    assert said.word == "error" and "sub_appid and no sub_mchid" in said.why


@pytest.mark.parametrize(("card", "kind", "why"), [
    ('terminal_id = "T1"\npath = "/dev/none"', "CardTerminal", "cannot be opened"),
    ('terminal_id = "T1"\nkind = "tcp"\nhost = "127.0.0.1"\nport = 1\nsecret = "s"', "CardTerminal", "does not listen"),
    ('terminal_id = "T-1"\npath = "/dev/none"', "Absent", "no terminal's")])
def test_a_card_terminal_is_made_and_one_that_is_not_there_says_so(card, kind, why):
    made = drivers_of(parse_toml(f"{EXAMPLE}\n[channel.card]\n{card}\n"), lambda symbol: None)["channel:card"]

    async def first():
        return await anext(made.inputs())
    assert type(made).__name__ == kind and why in asyncio.run(first()).why


def test_a_display_is_made_for_each_kind(tmp_path):
    import msgspec
    whole = config(tmp_path)
    def made(*kinds):
        return displays_of(msgspec.structs.replace(whole, displays=tuple(
            msgspec.structs.replace(whole.display, kind=kind, path="/dev/null") for kind in kinds)))
    for kind, name in (("file", "FileDisplay"), ("fb", "FbDisplay"), ("pole", "PoleDisplay")):
        assert {part: type(one).__name__ for part, one in made(kind).items()} == {"display": name}
    assert made("none") == {}
    assert [(part, one.part) for part, one in made("fb", "none", "pole").items()] == [
        ("display", "display"), ("display:3", "display:3")]


@pytest.mark.parametrize("mode", ["a public key", "certificates", "a certificate without its root"])
def test_alipay_is_made_with_a_key_or_with_certificates(tmp_path, pems, mode):
    import msgspec

    from sim.channels.alipay_keys import authority

    theirs = authority(pems["public"])
    held = {"a public key": theirs.alipay.key.public_key().public_bytes(*spki()), "certificates": theirs.installed,
            "a certificate without its root": theirs.alipay.pem}[mode]
    (tmp_path / "ours").write_bytes(pems["good"])
    (tmp_path / "theirs").write_bytes(held)
    whole = config(tmp_path)
    channel = msgspec.structs.replace(whole.channels[0], name="alipay", private_key_file=str(tmp_path / "ours"),
                                      platform_key_file=str(tmp_path / "theirs"))
    driver = drivers_of(msgspec.structs.replace(whole, channels=(channel,)), lambda symbol: None)["channel:alipay"]

    async def first():
        return await anext(driver.inputs())
    if mode != "a certificate without its root":
        assert type(driver).__name__ == "ChannelAccounts"
        return
    said = asyncio.run(first())
    assert said.word == "error" and "certificate of our key" in said.why and "BEGIN" not in said.why


def spki():
    from cryptography.hazmat.primitives import serialization as s
    return s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo
