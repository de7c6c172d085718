"""Every driver that a configuration can name is made, and one that cannot be says so while the rest sells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from device.config import parse_toml
from device.drivers.registry import display_of, drivers_of
from device.errors import DriverGone
from device.txn.inputs import DeviceSaid

EXAMPLE = (Path(__file__).parents[1] / "docs/box.example.toml").read_text()


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


def test_a_display_is_made_for_each_kind(tmp_path):
    import msgspec
    whole = config(tmp_path)
    for kind, name in (("file", "FileDisplay"), ("fb", "FbDisplay")):
        made = display_of(msgspec.structs.replace(whole, display=msgspec.structs.replace(whole.display, kind=kind)))
        assert type(made).__name__ == name
    assert display_of(msgspec.structs.replace(whole, display=msgspec.structs.replace(whole.display, kind="none"))) is None
