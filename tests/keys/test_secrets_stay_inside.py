"""What a person or a log can be shown of the box holds no secret: not a repr, not the masked configuration, not a core file."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from device.config import MASK, show
from device.drivers.channels.accounts import KeySet
from device.drivers.channels.codec_bytes import Reply, Request
from device.drivers.channels.gateway_key_bytes import Code
from device.drivers.channels.terminal_bytes import Held
from device.keys.sealed import Held as SealedHeld
from device.keys.sealed import SealingKey
from device.txn.desk import Code as DeskCode
from device.txn.desk import Desk
from device.txn.effects import ChargeCode, Intent
from device.txn.inputs import Scanned
from device.types import Account, Found, Item
from tests import ROOT
from tests.sealed_box import SealedBox

SECRET = "134512345678901234"                          # of a payer's code's own length
KEY = (SECRET * 4)[:64]
INTENT = Intent("0000012345000000010Z", "wechat", Account("wechat", "main"), 1, "", "", "")
HOLDERS = {
    "scan": Scanned(SECRET), "charge": ChargeCode(INTENT, SECRET), "code": DeskCode("1", SECRET),
    "desk": Desk(code=DeskCode("1", SECRET)), "request": Request("POST", f"/x?code={SECRET}", SECRET.encode(), {"A": SECRET}),
    "reply": Reply(200, {"a": SECRET}, SECRET.encode()), "terminal": Held(KEY.encode(), KEY.encode()),
    "activation": Code("00TB0X", KEY.encode()), "keys": KeySet(private_key=KEY.encode(), secret=KEY, api_v3_key=KEY),
    "sealed": SealedHeld(KEY.encode()), "sealing": SealingKey(KEY.encode()),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_whoever_prints_it_prints_no_secret(name):
    holder = HOLDERS[name]
    for text in (repr(holder), str(holder), f"{[holder]}"):
        assert SECRET not in text and SECRET[:9] not in text


def test_goods_that_were_scanned_are_shown_as_they_are():
    assert "6902538004045" in repr(Scanned("6902538004045", Found(Item("6902538004045", "", "", 1))))


def test_a_configuration_shows_no_secret_however_it_is_printed(tmp_path):
    """Every key that its table calls secret, in every section that has one, also one that a release adds."""
    box = SealedBox(tmp_path, secret=SECRET, api_v3_key=SECRET + "00000000000000")
    box.toml.write_text(box.toml.read_text() + f'[mqtt]\npassword = "{SECRET}"\n')
    config = box.config
    assert config.mqtt.password == config.channels[0].secret == SECRET
    assert SECRET not in repr(config) and SECRET not in repr(config.channels[0]) and repr(config).count(MASK) == 3
    assert SECRET not in str(show(config)) and repr(config.channels[0]).startswith("ChannelConfig(name='wechat'")
    assert SECRET.encode() in msgspec.json.encode(config)              # it is there, and only not shown


# As the service: no core file, no look from outside, and what OpenSSL must read from a path can still be read.
SERVICE = """
import ctypes, resource
from device.drivers.private_file import in_memory
from device.inside import keep_inside
keep_inside()
with open(in_memory(b"a certificate")) as file:
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), file.read())
"""


@pytest.mark.parametrize("service, dumpable", [("/run/none", 0), ("", 1)])
def test_memory_reaches_no_core_file(service, dumpable):
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    said = subprocess.run([sys.executable, "-c", SERVICE], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": service}, **user).stdout
    assert said == f"(0, 0) {dumpable} a certificate\n"
