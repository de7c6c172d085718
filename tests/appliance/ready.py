"""A box that was flashed, booted and enrolled as a person would do it, kept at the moment at which it became ready."""

from __future__ import annotations

import shutil
from pathlib import Path

from device.mqtt import enrol_wire
from tests.appliance.image import BuiltImage, rig_modules
from tests.appliance.machine import Boots, Machine
from tests.appliance.shop import Doors, Shop

CARD_MB = 4096


class Ready:
    """`frozen` the host's side at that moment, `boot_s` how long the first boot took until it served."""

    SNAPSHOT = "ready"

    def __init__(self, boots: Boots, folder: Path, frozen: Path, boot_s: float) -> None:
        self.boots, self._folder, self.frozen, self.boot_s = boots, folder, frozen, boot_s

    def machine(self, boots: Boots | None = None, *, rtc: str = "utc") -> Machine:
        """The machine whose disk holds that moment; one at a time."""
        return Machine(self._folder, boots or self.boots, rtc=rtc)


def made_ready(image: BuiltImage, room: Path, doors: Doors) -> Ready:
    """Flash, boot, enrol, wait until it serves, and keep that."""
    shop = Shop(room / "shop", doors)
    shop.start()
    try:
        with shop.enrolment() as (code, at):
            card = image.flashed(room / "card.img", first_files(shop, code, at))
            deb = image.folder / "kernel.deb"
            boots = image.boots(card, room, rig_modules(deb, room) if deb.exists() else None)
            machine = Machine(room / "machine", boots, size_mb=CARD_MB)
            try:
                machine.start()
                shop.machine = machine
                machine.rig.await_up()
                shop.await_serving()
                boot_s = machine.rig.ask("up")
                shop.until(shop.quiet, 60, "the first records at the cloud")
                shop.line.cut()                      # nobody will ever be at the other end of a connection of this moment
                shop.until(lambda: shop.state()["health"]["link"] != "ok", 60, "the link seen down")
                machine.snapshot(Ready.SNAPSHOT)
            finally:
                machine.end()
        frozen = room / "frozen"
        shutil.rmtree(frozen, ignore_errors=True)
        shop.freeze(frozen)
    finally:
        shop.stop()
    return Ready(boots, room / "machine", frozen, boot_s)


def first_files(shop: Shop, code: enrol_wire.Code, at: str) -> dict[str, bytes]:
    """What whoever flashes a card lays on it: the box's configuration, its files, and the code by which it enrols itself."""
    files = {"box.toml": shop.box_toml(), "enrol": f"{at}\n{enrol_wire.typed(code)}\n".encode()}
    return files | {f"state/{name}": data for name, data in shop.state_files().items()}
