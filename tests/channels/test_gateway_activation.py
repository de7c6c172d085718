"""A technician's one-use code makes a box a terminal of the gateway, whatever is lost on the way, and nobody else one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from device.__main__ import main
from device.config import parse_toml
from device.crockford import ALPHABET, check_of
from device.drivers import private_file
from device.drivers.channels import gateway_key_bytes as keys
from device.drivers.channels.gateway_activation import Activation
from device.drivers.channels.gateway_agreement import Agreement
from device.drivers.channels.terminal_bytes import Held, held_of
from device.drivers.registry import drivers_of
from device.gateway import with_terminal
from device.txn.effects import QueryOrder
from device.txn.inputs import Said
from device.types import Account
from sim.channels import gateway_terminals as far
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.server import LOST
from tests import ROOT
from tests.channels.test_channel_gateway import SECRET, TEA
from tests.channels.test_gateway_rotation import reply_of

BOX = 'box = "{box}"\nbox_no = "000001"\ntenant = "corner"\nstate_dir = "{folder}"\nrun_dir = "{folder}/run"\n{channel}'


@pytest.fixture
def gateway():
    server = GatewayServer(GatewayRules(lambda: int(server.now_s() * 1000)), secret=SECRET)
    server.start()
    yield server
    server.stop()


class Box:
    """A box on its own card, before anybody has sold on it."""

    def __init__(self, folder: Path, url: str, name: str, more: str = "") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.key, self.device = self.folder / "gateway.key", self.folder / "gateway.key.device"
        self.toml = self.folder / "box.toml"
        self.toml.write_text(BOX.format(box=name, folder=self.folder,
                                        channel=f'[channel.gateway]\nbase_url = "{url}"\n{more}' if url else ""))

    def activate(self, code, *flags):
        return main(["gateway", "activate", code, "--config", str(self.toml), *flags])

    @property
    def config(self):
        return with_terminal(parse_toml(self.toml.read_text()))


@pytest.fixture
def box(tmp_path, gateway):
    return Box(tmp_path, gateway.url, "corner-1")


def test_a_code_makes_a_terminal_that_sells(box, gateway, capsys):
    code = gateway.activation_code()
    assert box.activate(code.lower().replace("0", "o")) == 0
    said = capsys.readouterr().out
    held = held_of(box.key.read_bytes())
    assert held.notes == {"terminal": "T10002", "wallets": "wechat alipay unionpay ecny"} and len(held.newest) == 64
    assert "terminal T10002" in said and held.newest.decode() not in said and code not in said
    assert re.search(r"device ([0-9A-Z]{4}-[0-9A-Z]{4}):", said)[1] == far.fingerprint(device_of(gateway))
    assert (box.key.stat().st_mode & 0o777, box.device.exists(), box.config.channels[0].terminal_id) == (0o600, False, "T10002")
    assert asked(box) is Said.ABSENT and gateway.terminals._codes[code[:4] + code[5:7]].spent


def device_of(gateway):
    return next(code.device for code in gateway.terminals._codes.values() if code.device)


def asked(box):
    """The word on a query by the very driver that the box's configuration makes."""
    async def run():
        driver = drivers_of(box.config, lambda symbol: None)["channel:gateway"]
        try:
            account = Account("gateway", "main", (("terminal_id", box.config.channels[0].terminal_id),))
            return (await driver.do(QueryOrder(msgspec.structs.replace(TEA, account=account)))).said
        finally:
            await driver.close()
    return asyncio.run(run())


@pytest.mark.parametrize("kind", [*sorted(LOST), "down", "busy", "system_error", "page", "lying", "unsigned", "garbage",
                                  "other_nonce", "request_key", "redirect"])
def test_whatever_is_lost_the_same_code_gets_the_same_terminal(box, gateway, kind, capsys):
    gateway.fault(kind, call="activate")
    code = gateway.activation_code()
    assert box.activate(code) == 1
    out, err = capsys.readouterr()
    assert err.startswith("tillbox gateway: ") and len(err.splitlines()) == 1 and code not in err
    assert not box.key.exists() and box.device.exists()
    assert box.activate(code) == 0
    assert capsys.readouterr().out.splitlines()[0] == out.splitlines()[0]          # the same device, by its fingerprint
    assert [t.id for t in gateway.terminals._all.values()] == ["T10001", "T10002"]
    assert asked(box) is Said.ABSENT


def test_a_card_that_refuses_the_key_costs_no_code(box, gateway, monkeypatch, capsys):
    code, real = gateway.activation_code(), private_file.replace

    def full(path, held):
        raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr(private_file, "replace", full)
    assert box.activate(code) == 1 and "gateway.key: No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(private_file, "replace", real)
    assert box.activate(code) == 0 and asked(box) is Said.ABSENT


def test_another_box_with_the_same_code_is_refused(tmp_path, box, gateway, capsys):
    code, other = gateway.activation_code(), Box(tmp_path, gateway.url, "corner-2")
    assert (box.activate(code), other.activate(code)) == (0, 1)
    assert "used before" in capsys.readouterr().err and not other.key.exists()
    assert other.activate(gateway.activation_code()) == 0
    assert {held_of(b.key.read_bytes()).notes["terminal"] for b in (box, other)} == {"T10002", "T10003"}
    assert held_of(box.key.read_bytes()).newest != held_of(other.key.read_bytes()).newest


def test_a_code_is_dead_once_its_terminal_has_sold(box, gateway, capsys):
    code = gateway.activation_code()
    device = Agreement()
    exchanged(gateway, code, device)
    assert exchanged(gateway, code, device).notes["terminal"] == "T10002"            # asked again, as after a lost answer
    box.device.write_text(device.private.hex())
    box.device.chmod(0o600)
    assert box.activate(code) == 0 and asked(box) is Said.ABSENT
    with pytest.raises(ValueError, match="used before"):
        exchanged(gateway, code, device)


def exchanged(gateway, code, device=None):
    activation = Activation(keys.code_of(code), device or Agreement(), box="x", nonce="n1")
    request = activation.request(0)                                                  # a box without a clock
    return activation.read(reply_of(gateway.exchange(request.method, request.path, request.headers, request.body)))


def test_a_code_lives_seven_days_and_five_wrong_tries(gateway):
    real, now_s = gateway.now_s(), [0.0]
    gateway.terminals._now_s = lambda: real + now_s[0]
    old, guessed = gateway.activation_code(), gateway.activation_code()
    now_s[0] = 7 * 86_400 - 1
    assert exchanged(gateway, gateway.activation_code())
    wrong = guessed.replace("-", "")[:6] + "A" * 16
    for _ in range(5):
        with pytest.raises(ValueError, match="no such code"):
            exchanged(gateway, wrong + check_of(wrong))
    with pytest.raises(ValueError, match="mistyped too often"):
        exchanged(gateway, guessed)
    now_s[0] += 1
    with pytest.raises(ValueError, match="too old"):
        exchanged(gateway, old)


def test_neither_code_nor_key_goes_over_the_line(gateway):
    code, device = gateway.activation_code(), Agreement()
    activation = Activation(keys.code_of(code), device, box="x", nonce="n1")
    request = activation.request(0)
    answer = gateway.exchange(request.method, request.path, request.headers, request.body)
    held = activation.read(reply_of(answer))
    travelled = repr(request).encode() + repr(answer.headers).encode() + answer.body
    for secret in (keys.code_of(code).secret, held.newest, device.private.hex().encode(), device.private):
        assert secret not in travelled
    assert "secret=..." in repr(keys.code_of(code)) and code.replace("-", "")[6:22] not in repr(keys.code_of(code))


@pytest.mark.parametrize(("code", "why"), [
    ("", "24 digits and letters"), ("1234", "24 digits and letters"), ("U" * 24, "24 digits and letters"),
    ("0123-4567-89AB-CDEF-GHJK-MNPQ", "mistyped")])
def test_a_code_that_is_none_leaves_the_gateway_alone(box, gateway, capsys, code, why):
    assert box.activate(code) == 1
    out, err = capsys.readouterr()
    assert why in err and (not code or code not in err) and not gateway.seen and out == ""


def test_every_slip_of_a_character_is_found(gateway):
    code = gateway.activation_code().replace("-", "")
    for n, right in enumerate(code):
        for wrong in set(ALPHABET) - {right}:
            with pytest.raises(ValueError, match="mistyped"):
                keys.code_of(code[:n] + wrong + code[n + 1:])
    for n in range(23):
        swapped = code[:n] + code[n + 1] + code[n] + code[n + 2:]
        if swapped != code:
            with pytest.raises(ValueError, match="mistyped"):
                keys.code_of(swapped)


def test_a_terminal_is_not_given_up_by_mistake(box, gateway, capsys):
    assert box.activate(gateway.activation_code()) == 0
    before = box.key.read_bytes()
    assert box.activate(gateway.activation_code()) == 1
    assert "is terminal T10002 already" in capsys.readouterr().err and box.key.read_bytes() == before
    assert box.activate(gateway.activation_code(), "--again") == 0
    assert held_of(box.key.read_bytes()).notes["terminal"] == "T10003"


def test_a_running_box_keeps_its_key(box, gateway, capsys, monkeypatch):
    import socket
    assert box.activate(gateway.activation_code()) == 0
    (box.folder / "run").mkdir()
    monkeypatch.chdir(box.folder)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind("run/daemon.sock")
        daemon.listen()
        assert box.activate(gateway.activation_code(), "--again") == 1
    assert "systemctl stop tillbox" in capsys.readouterr().err


@pytest.mark.parametrize(("url", "more", "why"), [("", "", "sets up no gateway"),
                                                  ("http://127.0.0.1:1", f'secret = "{SECRET.decode()}"\n', "secret itself")])
def test_a_box_set_up_otherwise_is_told_so(tmp_path, capsys, url, more, why):
    assert Box(tmp_path, url, "corner-9", more).activate("0") == 1
    assert why in capsys.readouterr().err


def test_the_code_may_come_on_standard_input(box, gateway, monkeypatch):
    import io
    monkeypatch.setattr("sys.stdin", io.StringIO(gateway.activation_code() + "\n"))
    assert box.activate("-") == 0


def test_the_documents_example_is_true():
    """docs/channels.md: a code, both private keys, and what comes of them, recomputed by the server's own derivation."""
    page = (ROOT / "docs/channels.md").read_text()
    box_private, far_private = bytes(range(32)), bytes(range(32, 64))
    code = keys.code_of("00TB-0X01-2345-6789-ABCD-EFSW")
    device, theirs = Agreement(box_private), Agreement(far_private).public
    activation = Activation(code, device, box="corner-1", nonce="n1")
    request = activation.request(1554208460)
    first = activation.read(reply_of(signed(code, f'{{"result":"activated","terminal_id":"T10002","key":"{theirs.hex()}"}}')))
    purpose = f"terminal T10002 {device.public.hex()} {theirs.hex()}"
    assert first.newest == far.common(device.shared(theirs) + code.secret, code.id, purpose)
    second = keys.common_key(device.shared(theirs), first.newest, "T10002", "next", device.public, theirs)
    assert second == far.common(device.shared(theirs) + first.newest, "T10002", f"next {device.public.hex()} {theirs.hex()}")
    for shown in ("00TB-0X01-2345-6789-ABCD-EFSW", device.public.hex(), theirs.hex(), keys.fingerprint(device.public),
                  request.headers["Tillbox-Signature"], first.newest.decode(), second.decode()):
        assert f"`{shown}`" in page, shown


def signed(code, text):
    from sim.channels.server import Answer
    proof = far.mac(code.secret, code.id, "activate reply", b"200\nn1\n" + text.encode())
    return Answer(200, {"Tillbox-Nonce": "n1", "Tillbox-Signature": proof}, text.encode())


def test_what_the_file_says_fills_the_configuration_and_an_unreadable_one_leaves_it(box):
    assert box.config.channels[0].terminal_id == ""
    box.key.write_bytes(b"no key\n")
    assert box.config.channels[0].terminal_id == ""
    box.key.write_bytes(SECRET + b"\nterminal T10007\n")
    assert box.config.channels[0].terminal_id == "T10007"
    assert held_of(box.key.read_bytes()) == Held(SECRET, notes={"terminal": "T10007"})
