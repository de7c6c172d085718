"""The configuration: taken whole or refused whole, with every reason in words a shopkeeper can use."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from device import config as schema
from device.config import MASK, SECTIONS, Config, merged, parse, parse_toml, restarts, show, to_terms
from device.config_keys import MUST, NEEDS
from device.config_page import docs_page
from device.config_values import read_value
from device.errors import ConfigError
from device.push.layers import Layers
from device.types import Account, Rules
from tests import ROOT

BOX = {"box": "box-7", "box_no": "00000A", "tenant": "corner"}
WECHAT = {
    "base_url": "http://127.0.0.1:8700/", "appid": "wx0000000000000001", "mchid": "1900000001",
    "notify_url": "https://example.com/n", "serial_no": "5157", "private_key_file": "wechat.key",
    "platform_key_id": "PUB_KEY_ID_01", "platform_key_file": "/keys/platform.pub",
}
SELLING = BOX | {"merchant_keys_on_box": True, "channel": {"wechat": WECHAT}}


def reasons(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(data)
    return refused.value.reasons


def reason(**more: Any) -> str:
    said = reasons(BOX | more)
    assert len(said) == 1, said
    return said[0]


def test_three_keys_make_a_box_and_the_rest_has_defaults() -> None:
    config = parse(BOX)
    assert (config.box, config.printer.columns, config.route, config.channels) == ("box-7", 48, (), ())
    assert config.record_key_file == "/var/lib/tillbox/record.key"


def test_an_empty_file_names_what_is_missing() -> None:
    assert [said.split(" ")[0] for said in reasons({})] == ["box", "box_no", "tenant"]


def test_every_reason_is_told_at_once() -> None:
    said = reasons({
        "box": "Box 7", "box_no": "ILOVE0", "tenant": "t", "cutoff_hour": 24, "langg": "zh", "training": "yes",
        "printer": {"kind": "tcp", "columns": 500}, "channel": {"wechatt": {}, "gateway": {"base_url": "ftp://x"}},
        "route": ["alipay"], "template": [{"pattern": "FFPPPPPVVVVVX"}], "keypad": {"layout": {"F99": "PAY"}},
    })
    for part in ("box is", "box_no", "cutoff_hour", "langg", "training", "printer.columns", "printer.host",
                 "channel.wechatt", "channel.gateway.base_url", "route names alipay", "template 1", "keypad.layout.F99"):
        assert sum(part in one for one in said) == 1, (part, said)
    assert len(said) == 12


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    assert "did you mean cashier?" in reason(casheir="02")
    assert "did you mean printer?" in reason(printr={"kind": "usb"})
    assert "did you mean printer.columns?" in reason(printer={"colums": 48})
    assert "[printer]" in reason(columns=48)
    assert "docs/config.md" in reason(zzz=1)


@pytest.mark.parametrize(("given", "write"), [
    ("5m", 300), ("5 min", 300), ("300s", 300), ("1h", 3600), ("300", 300), ("5分钟", 300), ("60000 ms", 60),
])
def test_a_time_with_a_unit_is_explained(given: str, write: int) -> None:
    said = reasons(BOX | {"channel": {"gateway": {"base_url": "https://pay.example.com", "give_up_s": given}}})
    assert len(said) == 1
    assert said[0].startswith("channel.gateway.give_up_s") and f"write {write}," in said[0] and "seconds" in said[0]


def test_a_key_with_another_unit_in_its_name_is_explained() -> None:
    for name in ("give_up_ms", "give_up", "give_up_min"):
        said = reasons(BOX | {"channel": {"gateway": {"base_url": "https://pay.example.com", name: 5}}})
        assert "give_up_s, which counts seconds" in said[0]
    assert "amount_fen_max" in reason(amount_yuan_max=500)


def test_money_is_whole_fen() -> None:
    assert "write 50000 for 500.0 yuan" in reason(amount_fen_max=500.0)
    assert "write 29 for 0.29 yuan" in reason(cash_round_fen=0.29)
    assert "write 50000," in reason(amount_fen_max="500元")
    assert "write 50050," in reason(amount_fen_max="¥500.50")
    assert "whole number of fen" in reason(amount_fen_max=True)


@pytest.mark.parametrize(("more", "part"), [
    ({"cutoff_hour": -1}, "between 0 and 23"), ({"lang": "cn"}, "zh, en"), ({"training": 1}, "true or false"),
    ({"shop_zh": ""}, "0 characters"), ({"shop_zh": "a\x1bp"}, "control"), ({"display": {"rotation": 45}}, "0, 90, 180, 270"),
    ({"mqtt": {"cert_file": "a"}}, "go together"), ({"scanner": {"path": ""}}, "scanner.path is empty"),
    ({"printer": "usb"}, "write [printer]"), ({"template": {}}, "[[template]]"), ({"route": ["cash"]}, "known are"),
    ({"channel": {"gateway": {"base_url": "http://pay.example.com"}}}, "by https"),
    ({"channel": {"gateway": {"base_url": "https://x", "pace_s": [[60, 2], [30, 5]]}}}, "do not rise"),
    ({"channel": {"gateway": {"base_url": "https://x", "pace_s": "2"}}}, "[[60, 2], [300, 5]]"),
    ({"channel": {"gateway": {"base_url": "https://x", "give_up_s": 600, "dead_after_s": 60}}}, "not dead"),
    ({"channel": {"gateway": {"base_url": "https://x", "fields": {"a": 1}}}}, "table of texts"),
    ({"template": [{"pattern": "FFPPPPPVVVVVC"}, {"pattern": "FFPPPPPMMMMMC", "kind": "price"}]}, "never be used"),
])
def test_each_rule_has_its_sentence(more: dict[str, Any], part: str) -> None:
    assert part in reason(**more)


def test_a_channel_names_all_it_cannot_do_without() -> None:
    said = reasons(BOX | {"merchant_keys_on_box": True, "channel": {"wechat": {"base_url": "https://api.mch.weixin.qq.com"}}})
    assert len(said) == len(NEEDS["wechat"])


def test_wechats_own_keys_are_brought_or_fetched() -> None:
    bare = {name: value for name, value in WECHAT.items() if not name.startswith("platform_")} | {"api_v3_key": "k" * 32}
    fetched = parse(SELLING | {"channel": {"wechat": bare}})
    assert "k" * 32 not in repr(show(fetched))
    assert reasons(SELLING | {"channel": {"wechat": bare | {"platform_key_id": "PUB_KEY_ID_01"}}}) == [
        "channel.wechat: platform_key_id and platform_key_file go together: one of them is missing"]


def test_how_a_code_is_charged_stands_in_the_account_and_is_wechats_alone() -> None:
    assert "code_api" not in dict(to_terms(parse(SELLING)).accounts[0].fields)
    v3 = parse(SELLING | {"channel": {"wechat": WECHAT | {"code_api": "v3"}}})
    assert dict(to_terms(v3).accounts[0].fields)["code_api"] == "v3"
    assert "read of wechat alone" in reason(channel={"gateway": {"base_url": "https://x", "code_api": "v3"}})


def test_merchant_keys_need_a_word() -> None:
    for key_file in ("wechat.key", ""):                   # a sealed key is one, too
        assert "merchant_keys_on_box = true" in reason(channel={"wechat": WECHAT | {"private_key_file": key_file}})


def test_the_sealing_key_does_not_lie_beside_what_it_seals() -> None:
    for beside in ("seal.key", "keys/../seal.key", "/var/lib/tillbox/keys/seal.key", "/boot/../var/lib/tillbox/seal.key"):
        assert "beside what it seals" in reason(seal_key_file=beside)
    assert parse(BOX | {"seal_key_file": "/boot/firmware/seal.key"}).seal_key_file == "/boot/firmware/seal.key"


def test_the_terms_are_what_the_core_needs() -> None:
    config = parse(SELLING | {"cash_round_fen": 10, "template": [{"pattern": "FFPPPPPVVVVVC", "prefixes": ["21"]}]})
    terms = to_terms(config)
    fields = (("appid", "wx0000000000000001"), ("mchid", "1900000001"), ("notify_url", "https://example.com/n"))
    assert terms.accounts == (Account("wechat", "main", fields),)
    assert terms.rules_of("wechat") == Rules()              # the table's defaults are the core's
    assert (terms.route, terms.cash_round_fen, terms.box_no) == (("wechat",), 10, "00000A")
    assert config.channels[0].base_url == "http://127.0.0.1:8700"
    assert config.channels[0].private_key_file == "/var/lib/tillbox/wechat.key"
    assert config.channels[0].platform_key_file == "/keys/platform.pub"
    assert config.templates[0].prefixes == ("21",)


def test_the_cores_defaults_and_the_tables_agree() -> None:
    terms = to_terms(parse(BOX))
    for name in ("shop_zh", "shop_en", "cashier", "lang", "cutoff_hour", "cash_round_fen", "amount_fen_max", "training"):
        assert getattr(terms, name) == getattr(type(terms)(), name)


def test_secrets_are_masked_and_never_stand_in_a_reason() -> None:
    shown = dict(show(parse(BOX | {"mqtt": {"password": "hunter2"}})))
    assert shown["mqtt.password"] == MASK and shown["mqtt.user"] == "" and "hunter2" not in str(shown)
    for bad in ({"password": ["hunter2"]}, {"password": "hunter2\x00"}, {"password": "hunter2" * 50}):
        assert "hunter2" not in reason(mqtt=bad)


CARD = {"terminal_id": "T1", "path": "/dev/serial/by-id/usb-terminal"}


def test_a_card_terminal_is_a_device_and_no_route() -> None:
    config = parse(SELLING | {"channel": {"wechat": WECHAT, "card": CARD}})
    assert config.route == ("wechat",) and "card" not in dict(to_terms(config).rules)
    assert to_terms(config).account_of("card") == Account("card", "main", (("terminal_id", "T1"),))
    assert "known are" in reason(channel={"card": CARD}, route=["card"])
    tcp = {"terminal_id": "T1", "kind": "tcp", "host": "h", "secret": "s"}
    assert parse(BOX | {"channel": {"card": tcp}}).channels[0].port == 9101


@pytest.mark.parametrize(("card", "part"), [
    ({"path": "/dev/ttyUSB0"}, "terminal_id is missing"), ({"terminal_id": "T1"}, "path is missing"),
    (CARD | {"base_url": "https://x"}, "read by no card terminal"), (CARD | {"give_up_s": 60}, "read by no card terminal"),
    ({"terminal_id": "T1", "kind": "tcp", "host": "h"}, "secret is missing"),
    ({"terminal_id": "T1", "kind": "tcp", "secret": "s"}, "host is missing"),
])
def test_a_card_terminal_has_its_own_keys(card: dict[str, Any], part: str) -> None:
    assert part in reason(channel={"card": card})


def test_no_other_channel_has_them() -> None:
    assert "card terminal alone" in reason(channel={"gateway": {"base_url": "https://x", "path": "/dev/ttyUSB0"}})


def test_a_change_restarts_only_what_it_must() -> None:
    old = parse(SELLING)
    assert restarts(old, old) == set()
    assert restarts(old, parse(SELLING | {"shop_zh": "新店"})) == set()
    assert restarts(old, parse(SELLING | {"printer": {"columns": 32}, "cashier": "02"})) == {"printer"}
    assert restarts(old, parse(BOX)) >= {"channel", "daemon"}


def test_layers_lie_on_each_other_and_lists_are_replaced() -> None:
    low = BOX | {"route": ["wechat", "alipay"], "printer": {"kind": "usb", "columns": 32}}
    whole = merged(low, {"printer": {"columns": 48}}, {"route": ["gateway"]})
    assert whole["printer"] == {"kind": "usb", "columns": 48} and whole["route"] == ["gateway"]
    assert low["printer"] == {"kind": "usb", "columns": 32}


def test_toml_is_read_and_bad_toml_is_explained() -> None:
    assert parse_toml('box = "b"\nbox_no = "000001"\ntenant = "t"\n[scanner]\nkind = "serial"\n').scanner.kind == "serial"
    with pytest.raises(ConfigError, match="line 2"):
        parse_toml("box = 'b'\nbox_no = \nlang = 'zh'")
    with pytest.raises(ConfigError, match="nested without end"):
        parse_toml("box = " + "[" * 5_000 + "]" * 5_000)
    with pytest.raises(ConfigError, match="nested without end"):
        Layers("box = " + "[" * 5_000 + "]" * 5_000, which="box.toml")


def test_structs_and_table_name_the_same_keys() -> None:
    for name, struct in (("signer", schema.SignerConfig), ("scanner", schema.ScannerConfig), ("keypad", schema.KeypadConfig),
                         ("mqtt", schema.MqttConfig), ("display", schema.DisplayConfig), ("sound", schema.SoundConfig),
                         ("console", schema.ConsoleConfig), ("printer", schema.PrinterConfig),
                         ("channel.*", schema.ChannelConfig), ("", Config), ("template[]", schema.Template)):
        keys = [key.name for key in SECTIONS[name]]
        assert [field for field in struct.__struct_fields__ if field in keys] == keys
        extra = set(struct.__struct_fields__) - set(keys)
        assert extra <= {"name", "written", "signer", "scanner", "keypad", "display", "printer", "sound", "cards", "console",
                         "mqtt", "journal", "channels", "templates", "supervisors", "scanners", "displays"}


def test_every_default_is_a_value_its_own_key_takes() -> None:
    for keys in SECTIONS.values():
        for key in keys:
            if key.default is not MUST:
                raw = msgspec.to_builtins(key.default)
                raw = [list(p) if isinstance(p, tuple) else p for p in raw] if isinstance(raw, tuple) else raw
                faults: list[str] = []
                assert read_value(key, raw, key.name, faults) == key.default and not faults


def test_the_example_in_docs_is_a_configuration() -> None:
    config = parse_toml((ROOT / "docs" / "box.example.toml").read_text("utf-8"))
    assert config.channels[0].name == "gateway" and len(config.templates) == 2


def test_the_page_in_docs_is_current() -> None:
    page = ROOT / "docs" / "config.md"
    assert page.read_text("utf-8") == docs_page(), "run: python -m device.config > docs/config.md"


def test_several_displays_are_a_list_and_one_is_still_a_section() -> None:
    one = parse(BOX | {"display": {"kind": "fb", "rotation": 90}})
    assert one.displays == (one.display,)
    two = parse(BOX | {"display": [{"kind": "fb", "rotation": 90}, {"kind": "pole", "path": "/dev/ttyS1", "dialect": "led8"}]})
    assert two.display == one.display and [(x.kind, x.dialect) for x in two.displays] == [("fb", "cd5220"), ("pole", "led8")]
    assert dict(show(two))["display.2.path"] == "/dev/ttyS1" and "display.path" in dict(show(one))
    assert restarts(one, two) == {"display"}


@pytest.mark.parametrize(("given", "why"), [
    ([], "at most 4"), ([1], "at most 4"), ([{}] * 5, "at most 4"), ([{}, {"kind": "pole", "path": ""}], "display.path is empty"),
    ([{"path": "/dev/fb0"}, {"kind": "pole", "path": "/dev//fb0"}], "one owner"),
    ([{}, {"path": "/dev/x", "dialcet": "led8"}], "display 2: dialcet is no key"),
    ([{}, {"path": "/dev/x", "rotation": 45}], "display 2: rotation"),
])
def test_a_list_of_displays_with_a_fault_is_refused_whole(given: list[Any], why: str) -> None:
    assert why in reason(display=given)
