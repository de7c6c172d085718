"""The keypad: its layout, its decoder, and the model that stands for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from device.drivers.input import keypad_keys
from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, SYN_DROPPED, SYN_REPORT
from device.drivers.input.keypad_evdev import EvdevKeypad
from device.drivers.input.keypad_keys import CODES, EVENTS_OF, LAYOUT, KeypadEvents, layout_codes
from device.errors import ConfigError
from device.txn.inputs import KEYS, DeviceSaid, Input, Pressed
from sim.devices.keypad import KeypadModel


def keys_of(events: list[tuple[int, int, int]], pad: KeypadEvents | None = None) -> list[str]:
    pad = pad or KeypadEvents()
    return [key for event in events if (key := pad.feed((*event, 0)))]


def test_every_key_of_the_till_can_be_typed_and_is_read_back_once() -> None:
    assert set(EVENTS_OF) == set(KEYS) == set(keypad_keys.KEYS)
    for key in KEYS:
        assert keys_of(EVENTS_OF[key]) == [key]


def test_codes_are_the_kernels() -> None:
    evdev = pytest.importorskip("evdev")
    for name, code in CODES.items():
        assert getattr(evdev.ecodes, f"KEY_{name}") == code
    assert set(LAYOUT.values()) == set(KEYS)


def test_releases_repeats_and_unknown_keys_are_no_presses() -> None:
    code = CODES["KPPLUS"]
    assert keys_of([(EV_KEY, code, 0), (EV_KEY, code, 2), (EV_KEY, 240, 1), (4, 4, 458839)]) == []


def test_num_lock_changes_no_key_whoever_keeps_it() -> None:
    numbers = [CODES[f"KP{n}"] for n in range(10)]
    lock = [(EV_KEY, CODES["NUMLOCK"], 1), (17, 0, 1), (EV_KEY, CODES["NUMLOCK"], 0)]
    assert keys_of([*lock, *((EV_KEY, code, 1) for code in numbers), *lock]) == list("0123456789")
    moved = [CODES[name] for name in ("INSERT", "END", "DOWN", "PAGEDOWN", "LEFT", "KP5", "RIGHT", "HOME", "UP", "PAGEUP")]
    assert keys_of([(EV_KEY, code, 1) for code in moved]) == list("0123456789")


def test_after_a_kernel_overrun_the_rest_of_its_report_is_ignored() -> None:
    pay = EVENTS_OF["PAY"]
    assert keys_of([(EV_SYN, SYN_DROPPED, 0), pay[0], (EV_SYN, SYN_REPORT, 0), *EVENTS_OF["CLEAR"]]) == ["CLEAR"]


def test_a_shop_lays_its_own_keys_on_the_default() -> None:
    pad = KeypadEvents(layout_codes({"KEY_F9": "DRAWER", "kpdot": "00", "F6": ""}))
    assert keys_of([(EV_KEY, CODES["F9"], 1), (EV_KEY, CODES["KPDOT"], 1), (EV_KEY, CODES["F6"], 1)], pad) == ["DRAWER", "00"]


def test_a_layout_is_refused_whole_with_every_reason() -> None:
    with pytest.raises(ConfigError) as refused:
        layout_codes({"KPFOO": "PAY", "F9": "PAYY"})
    assert len(refused.value.reasons) == 2
    with pytest.raises(ConfigError, match="no key left for PAY"):
        layout_codes({"KPPLUS": "CASH"})


def test_the_model_types_every_key_through_the_driver(tmp_path: Path) -> None:
    async def story() -> list[Input]:
        model = KeypadModel(tmp_path / "keypad")
        inputs = EvdevKeypad(str(model.path)).inputs()
        said = [await asyncio.wait_for(anext(inputs), 10)]
        for key in KEYS:
            model.press(key)
        said += [await asyncio.wait_for(anext(inputs), 10) for _ in KEYS]
        model.unplug()
        said += [s async for s in inputs]
        with pytest.raises(RuntimeError):
            model.press("PAY")
        return said

    said = asyncio.run(story())
    assert said[0] == DeviceSaid("keypad", "ok")
    assert said[1:-1] == [Pressed(key) for key in KEYS]
    assert isinstance(said[-1], DeviceSaid) and said[-1].word == "gone"
