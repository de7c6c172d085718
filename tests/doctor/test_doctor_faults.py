"""One thing of a well box is harmed, as it breaks in a shop, and the doctor names that thing: its code, its part, who holds it."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import sqlite3
import time
from types import SimpleNamespace

import pytest

from device import __version__
from device.doctor import counter as doctor_counter
from device.doctor import online as doctor_online
from device.doctor.codes import CHANNELS, LINK, NET
from device.doctor.look import Look
from device.drivers.signer.file import FileSigner
from device.store_forward.second_copy import MAGIC
from tests.doctor_room import Door, Outside, Room


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    made = Outside(tmp_path_factory.mktemp("outside"))
    yield made
    made.close()


@pytest.fixture
def room(outside, tmp_path, monkeypatch):
    monkeypatch.setattr("device.real_clock.clock_quality", lambda: "ntp")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(doctor_online, "LINE_S_MAX", 0.6)
    monkeypatch.setattr(doctor_online, "ALERT_S", 0.05)
    monkeypatch.setattr(doctor_counter, "ANSWER_S", 0.3)
    made = Room(tmp_path, outside)
    made.patch = monkeypatch
    yield made
    made.close()
    for channel in outside.channels.values():
        if hasattr(channel, "server"):
            channel.server.clear()


# What breaks, one line a fault.  Each harms one thing of the room.

def put(section, **fields):
    return lambda room: room.put(section, **fields)


def kernel(path, text):
    return lambda room: room.file(path, text)


def says(**health):
    return lambda room: room.says(**health)


def down_cable(room):
    room.file("sys/class/net/eth0/carrier", "0")
    room.file("sys/class/net/eth0/operstate", "down")
    room.put("mqtt", host="192.0.2.1")


def no_address(room):
    room.file("proc/net/route", "Iface Destination Gateway Flags\n")
    room.put("mqtt", host="192.0.2.1")


def no_names(room):
    room.put("mqtt", host="broker.tillbox.test")
    room.put("channel.wechat", base_url="https://pay.tillbox.test")
    known = socket.getaddrinfo

    def asked(host, *more, **kinds):
        if isinstance(host, str) and host.endswith(".test"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known(host, *more, **kinds)

    room.patch.setattr(socket, "getaddrinfo", asked)


def one_name(room):
    def asked(host, *more, _known=socket.getaddrinfo, **kinds):
        if host == "no-such-host.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return _known(host, *more, **kinds)

    room.patch.setattr(socket, "getaddrinfo", asked)
    room.put("mqtt", host="no-such-host.test")


def strange_broker(room):
    room.put("mqtt", port=room.ending(Door(room.outside.strange)).port)


def wants_ours(room):
    room.put("mqtt", port=room.ending(Door(room.outside.tls, client="required")).port)


def gone_broker(room):
    with socket.create_server(("127.0.0.1", 0)) as line:
        room.put("mqtt", port=line.getsockname()[1])


def plain_broker(room):
    line = room.ending(socket.create_server(("127.0.0.1", 0), backlog=8))
    line.settimeout(0.05)
    room.put("mqtt", port=line.getsockname()[1])


def refused(room):
    room.says(link="down")
    room.state["link_why"] = "127.0.0.1:8883: the connection ended: Not authorized"


def own_certificate(room, begins_d, ends_d):
    from cryptography import x509
    real = x509.load_pem_x509_certificate
    room.file("box.pem", room.outside.tls.client_pem.decode()).rename(room.home / "box.pem")
    room.put("mqtt", cert_file=str(room.home / "box.pem"), key_file=str(room.home / "box.pem"))
    (room.home / "box.pem").chmod(0o600)
    now = datetime.datetime.now(datetime.UTC)
    over = SimpleNamespace(not_valid_before_utc=now + datetime.timedelta(days=begins_d),
                           not_valid_after_utc=now + datetime.timedelta(days=ends_d))
    ours = room.outside.tls.client_pem
    room.patch.setattr(x509, "load_pem_x509_certificate", lambda pem, *more: over if pem == ours else real(pem, *more))


def off_clock(room):
    room.patch.setattr(room.channels["wechat"].server, "now_s", lambda: time.time() - 900)


def unset(room):
    room.says()
    room.patch.setattr("device.real_clock.clock_quality", lambda: "unset")


def at(name, kind):
    return lambda room: room.channels[name].server.fault(kind, count=None, seconds=2)


def other_key(name):
    return lambda room: room.other_key(name)


def their_key(name):
    """What the channel's answers are proven by is another's."""
    def harm(room):
        room.put(f"channel.{name}", platform_key_file=str(room.file("other.pem", room.outside.other.public_pem.decode())))
    return harm


def strange_roots(room):
    room.put("channel.wechat", ca_file=str(room.file("ca.pem", room.outside.strange.ca_pem.decode())))


def stranger(name, field, value="9999999999999999"):
    """The channel does not know the number that the box calls itself by."""
    return lambda room: room.patch.setattr(room.channels[name].server.rules, field, value)


def printer(**how):
    def harm(room):
        room.printer.paper(out=how.get("out"), low=how.get("low"))
        room.printer.cover(how.get("cover", False))
        room.printer.silence(how.get("mute", False))
    return harm


def printer_off(room):
    room.printer.power(False)
    assert room.printer_port.settle()


def port_held(room):
    room.holder = room.holds(room.serial_printer().path.resolve())


def port_gone(room):
    room.serial_printer()
    room.put("printer", path=str(room.folder / "dev" / "ttyUSB7"))


def open_drawer(room):
    room.put("printer", drawer_sensor="high")
    room.printer.drawer_open = True
    room.printer._drawer_high_open = True


def scanner_port(*ports):
    def harm(room):
        for n, port in enumerate(ports, 3):
            room.plugged.keyboard(n, port)
        room.put("scanner", path="/dev/input/event3")
        exists, access = os.path.exists, os.access
        room.patch.setattr(os.path, "exists", lambda path: path == "/dev/input/event3" or exists(path))
        room.patch.setattr(os, "access", lambda path, mode, **kinds: path == "/dev/input/event3" or access(path, mode, **kinds))
    return harm


def no_panel(room):
    room.put("display", kind="fb", path=str(room.folder / "dev" / "fb9"))


def big_panel(room):
    room.file("dev/fb0", "")
    room.file("sys/class/graphics/fb0/virtual_size", "3840,2160")
    room.put("display", kind="fb", path=str(room.root / "dev" / "fb0"))


def odd_pixels(room):
    big_panel(room)
    room.file("sys/class/graphics/fb0/virtual_size", "800,480")
    room.file("sys/class/graphics/fb0/bits_per_pixel", "24")


def card_of(**more):
    def harm(room):
        card = SimpleNamespace(**{"f_bavail": 1 << 30, "f_frsize": 1, "f_flag": 0, **more})
        room.patch.setattr("device.doctor.box.os.statvfs", lambda path: card)
    return harm


def read_only(room):
    room.file("proc/mounts", f"/dev/root / ext4 rw 0 0\n/dev/mmcblk0p3 {room.home} ext4 ro,relatime 0 0\n")


def rot(room):
    db = sqlite3.connect(room.home / "journal.db")
    db.execute("UPDATE journal SET facts = '[\"rotten' WHERE n = 2")
    db.commit()
    db.close()


def no_copy(room):
    shutil.rmtree(room.home / "second")


def rotten_copy(room):
    segment = min((room.home / "second").glob("copy-*.seg"))
    data = bytearray(segment.read_bytes())
    second = data.index(MAGIC, data.index(MAGIC) + 4)
    data[second + 100] ^= 0xFF
    segment.write_bytes(data)


def old_copy(room):
    """As somebody put back last week's copy: its last frame is not there."""
    segment = max((room.home / "second").glob("copy-*.seg"))
    data = segment.read_bytes()
    segment.write_bytes(data[:data.rindex(MAGIC)] + bytes(len(data) - data.rindex(MAGIC)))


def short_journal(room):
    """As a card that lost what it had confirmed."""
    db = sqlite3.connect(room.home / "journal.db")
    db.execute("DELETE FROM journal WHERE n = (SELECT max(n) FROM journal)")
    db.commit()
    db.close()


def no_key(room):
    (room.home / "record.pem").unlink()


def another_key(room):
    no_key(room)
    FileSigner(room.home / "record.pem")


def started(*starts):
    """What the journal tells of earlier starts: (seconds ago, software)."""
    def harm(room):
        folded = Look._folded

        def told(look, db):
            answer = folded(look, db)
            now = datetime.datetime.now().astimezone()           # not of the module: a whole suite may lie between
            look.boots[:] = [((now - datetime.timedelta(seconds=ago)).isoformat(), software) for ago, software in starts]
            return answer

        room.patch.setattr(Look, "_folded", told)
    return harm


def half_updated(room):
    room.says()
    room.state["software"] = "0.0.9"


def hung(room):
    room.hangs = True


def bad_price(room):
    prices = room.folder / "prices.csv"
    prices.write_text("gtin,price\n1,2\n")
    room.put("", prices_file=str(prices))


FAULTS = {
    # the line
    "cable": (down_cable, "link_cable", "link"),
    "no address": (no_address, "link_address", "link"),
    "name server": (no_names, "dns", "link"),
    "broker's name": (one_name, "broker_name", "link"),
    "broker gone": (gone_broker, "broker_line", "link"),
    "broker's certificate": (strange_broker, "broker_certificate", "link"),
    "broker without TLS": (plain_broker, "broker_tls", "link"),
    "broker wants our certificate": (wants_ours, "broker_tls", "link"),
    "broker refuses the box": (refused, "broker_refuses", "link"),
    "our certificate over": (lambda room: own_certificate(room, -400, -1), "certificate_over", "link"),
    "our certificate not yet": (lambda room: own_certificate(room, 1, 400), "certificate_early", "link"),
    "roots gone": (put("mqtt", ca_file="/nowhere/ca.pem"), "cloud_file_gone", "link"),
    "ack key gone": (put("", ack_key_file="/nowhere/ack.jwk"), "ack_key_unfit", "link"),
    "collector away": (says(collector="away"), "collector_away", "link"),
    "collector halted": (says(collector="fork"), "collector_halted", "link"),
    "clock off": (off_clock, "clock_off", "channel.wechat"),
    "clock wrong": (says(clock="wrong"), "clock_off", "clock"),
    "clock unset": (unset, "clock_unset", "clock"),
    # the channels
    **{f"{name} silent": (at(name, "slow"), "channel_silent", f"channel.{name}") for name in ("wechat", "gateway")},
    **{f"{name} down": (at(name, "down"), "channel_answer", f"channel.{name}")
       for name in ("wechat", "alipay", "unionpay", "gateway")},
    **{f"{name} answers with a page": (at(name, "page"), code, f"channel.{name}")
       for name, code in (("wechat", "channel_unproven"), ("unionpay", "channel_answer"))},
    **{f"{name} answers without proof": (at(name, "lying"), "channel_unproven", f"channel.{name}")
       for name in ("wechat", "alipay", "unionpay", "gateway")},
    **{f"{name} knows another key of ours": (other_key(name), "channel_signature", f"channel.{name}")
       for name in ("wechat", "alipay", "unionpay")},
    "gateway knows another key of ours": (put("channel.gateway", secret="e" * 64), "channel_signature", "channel.gateway"),
    "wechat has another key": (their_key("wechat"), "channel_unproven", "channel.wechat"),
    "alipay has another key": (their_key("alipay"), "channel_unproven", "channel.alipay"),
    "wechat does not know the shop": (stranger("wechat", "mchid"), "channel_account", "channel.wechat"),
    "alipay does not know the app": (stranger("alipay", "app_id"), "channel_account", "channel.alipay"),
    "unionpay does not know the shop": (stranger("unionpay", "merchant"), "channel_account", "channel.unionpay"),
    "wechat gone": (put("channel.wechat", base_url="https://127.0.0.1:1"), "channel_line", "channel.wechat"),
    "wechat's certificate": (strange_roots, "channel_certificate", "channel.wechat"),
    "wechat's key file gone": (put("channel.wechat", platform_key_file="/nowhere/key.pem"), "channel_unusable", "channel.wechat"),
    # the counter
    "paper out": (printer(out=True), "printer_paper_out", "printer"),
    "paper low": (printer(low=True), "printer_paper_low", "printer"),
    "cover open": (printer(cover=True), "printer_cover_open", "printer"),
    "printer mute": (printer(mute=True), "printer_silent", "printer"),
    "printer off": (printer_off, "printer_gone", "printer"),
    "printer's cable": (port_gone, "printer_gone", "printer"),
    "printer's port held": (port_held, "printer_held", "printer"),
    "another printer": (put("printer", model="TM-T88VI"), "printer_model", "printer"),
    "cutter": (lambda room: room.printer.fault(cutter=True), "printer_cutter", "printer"),
    "paper out, says the daemon": (says(printer="paper_out"), "printer_paper_out", "printer"),
    "scanner unplugged": (lambda room: room.scanner.unplug(), "scanner_gone", "scanner"),
    "scanner gone, says the daemon": (says(scanner="gone"), "scanner_gone", "scanner"),
    "twin scanners": (scanner_port("1-1.2", "1-1.3"), "scanner_twins", "scanner"),
    "a strange keyboard": (says(keyboards="strange"), "keyboard_strange", "keyboards"),
    "scanner's layout": (says(scanner="layout"), "scanner_layout", "scanner"),
    "nothing in the scanner's port": (put("scanner", port="1-1.4"), "scanner_gone", "scanner"),
    "keypad unplugged": (lambda room: room.keypad.unplug(), "keypad_gone", "keypad"),
    "display gone": (no_panel, "display_gone", "display"),
    "display gone, says the daemon": (says(display="gone"), "display_gone", "display"),
    "display too large": (big_panel, "display_geometry", "display"),
    "display of odd pixels": (odd_pixels, "display_geometry", "display"),
    "drawer open": (open_drawer, "drawer_open", "drawer"),
    "drawer stuck": (says(drawer="stuck"), "drawer_stuck", "drawer"),
    # the box
    "card full": (card_of(f_bavail=1 << 20), "card_full", "card"),
    "card nearly full": (card_of(f_bavail=100 << 20), "card_low", "card"),
    "card read-only": (read_only, "card_readonly", "card"),
    "card turned read-only": (card_of(f_flag=os.ST_RDONLY), "card_readonly", "card"),
    "card worn": (kernel("sys/block/mmcblk0/device/life_time", "0x03 0x0b"), "card_worn", "card"),
    "card's reserve": (kernel("sys/block/mmcblk0/device/pre_eol_info", "0x03"), "card_worn", "card"),
    "card's errors": (kernel("sys/fs/ext4/mmcblk0p2/errors_count", "7"), "card_errors", "card"),
    "journal rotten": (rot, "journal_unreadable", "journal"),
    "journal at its quota": (says(journal="full"), "journal_full", "journal"),
    "no second copy": (no_copy, "copy_gone", "second_copy"),
    "second copy rotten": (rotten_copy, "copy_damaged", "second_copy"),
    "second copy behind": (old_copy, "copy_behind", "second_copy"),
    "journal shorter than its copy": (short_journal, "journal_short", "journal"),
    "second copy gone, says the daemon": (says(second_copy="gone"), "copy_gone", "second_copy"),
    "record key gone": (no_key, "record_key_gone", "signer"),
    "another record key": (another_key, "record_key_unfit", "signer"),
    "signer broken": (says(signer="broken"), "signer_broken", "signer"),
    "configuration": (put("printer", colums=48), "config_refused", "config"),
    "prices": (bad_price, "prices_refused", "prices"),
    "update fell back": (started((90_000, "99.1.0")), "update_fell_back", "update"),
    "update waits": (half_updated, "update_waits", "update"),
    "daemon hangs": (hung, "daemon_mute", "daemon"),
    "daemon dies again and again": (started(*((30 * n, __version__) for n in range(6))), "restart_loop", "watchdog"),
    "watchdog off": (kernel("sys/class/watchdog/watchdog0/state", "inactive"), "watchdog_off", "watchdog"),
    "watchdog reset the box": (kernel("sys/class/watchdog/watchdog0/bootstatus", "32"), "watchdog_bit", "watchdog"),
    "daemon stopped": (lambda room: None, "daemon_down", "daemon"),
}


# Faults of these are looked for with every line tried; beside the others the lines are well, as in the test of a well box.
LINES = {row.code for row in NET + LINK + CHANNELS}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_names_what_was_harmed(room, fault):
    harm, code, part = FAULTS[fault]
    harm(room)
    began = time.monotonic()
    report = room.examined(online=code in LINES)
    found = [f"{one.code}: {one.sentence}" for one in report.findings if one.action]
    assert report.code == code, found
    assert part in (report.part, "channel.wechat") and report.sentence and report.action and report.sentence_zh and report.action_zh
    assert time.monotonic() - began < 60
    assert room.printer.receipts() == [] and room.printer.drawer_kicks == 0 and not room.printer.strange, "looking is not printing"
    assert all(not channel.orders() for channel in room.channels.values())


def test_a_well_box_is_well_and_looking_changes_nothing(room):
    room.says()
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in room.home.rglob("*") if file.is_file()}
    report = room.examined()
    assert (report.code, report.wrong, report.action) == ("ok", 0, ""), [one.code for one in report.findings if one.action]
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in room.home.rglob("*") if file.is_file()} == before


def test_whoever_holds_the_printer_s_port_is_named_with_his_process(room):
    port_held(room)
    report = room.examined(online=False)
    assert (report.code, str(room.holder) in report.sentence, "sleep" in report.sentence) == ("printer_held", True, True)


def test_a_cable_hides_what_hangs_behind_it(room):
    down_cable(room)
    room.put("channel.wechat", base_url="https://no-such-host.test")
    room.says(link="down", collector="away", channel__wechat="gone")
    report = room.examined()
    assert report.code == "link_cable" and not {"broker_line", "collector_away"} & {one.code for one in report.findings}
