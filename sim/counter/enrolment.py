"""How a box of the counter becomes one of the fleet: by a code, as a technician would do it.

Knows the enrolment door, the desk and one command; refuses to know what is in a message.  The door is open only as long as it
takes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from device.identity import folder as identity
from device.mqtt import enrol_wire
from fleet import groups
from fleet.identity import enrol
from fleet.identity.enrol_desk import DeskLine
from fleet.identity.enrol_tool import wall
from fleet.keys import SigningKey
from fleet.line import dressed, share_of
from fleet.records.store import Store
from sim.broker import Broker, EnrolDoor
from sim.counter.boxes import Boxes
from sim.counter.certificates import DESK, Certificates

TOOL_S_MAX = 60.0


def enrolled(folder: Path, certificates: Certificates, broker: Broker, store_at: str, box: Boxes) -> None:
    """Make the box that stands at the counter one of the fleet, unless it is and its certificate is young.

    RuntimeError with the command's own sentence when that fails.
    """
    known = identity.cloud_of(box.home / "identity") is not None
    if known and not certificates.authority.due(certificates.full(box.name)):
        return
    with desk_open(folder, certificates, broker, store_at, box) as (code, door):
        argv = ["enrol", "-", "--broker", f"127.0.0.1:{door}", "--config", f"{folder}/box.toml"] + ["--again"] * known
        done = subprocess.run([sys.executable, "-m", "device", *argv], input=enrol_wire.typed(code), text=True,
                              capture_output=True, timeout=TOOL_S_MAX)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip() or "the box was not enrolled, and said nothing")


@contextlib.contextmanager
def desk_open(folder: Path, certificates: Certificates, broker: Broker, store_at: str, box: Boxes, *,
              told: tuple[str, int] | None = None) -> Iterator[tuple[enrol_wire.Code, int]]:
    """The enrolment desk and its door, with a fresh code for the box: (code, the door's port on 127.0.0.1).

    `told` is where boxes are told that the broker is; left out: where it is.
    """
    proof, tenant = certificates.give(DESK), certificates.authority.tenant
    keys = enrol_wire.Keys(*((SigningKey(folder / file).jwk,)
                               for file in ("ack.pem", "config.pem", "command.pem", "ca/console.pem")))
    host, port = told or ("127.0.0.1", broker.port)
    store = Store(store_at)
    try:
        groups.made(store.database, enrol.SCHEMA)
        desk = enrol.Desk(store.database, certificates.authority, tenant, enrol.code_key(folder / "ca"), keys=keys,
                          host=host, port=port, wall=wall)
        code = desk.code_for(box.name, box.number)
        line = DeskLine(desk.take, "127.0.0.1", broker.port, tenant, dress=dressed(proof), share=share_of(proof))
        line.start()
        try:
            with EnrolDoor(broker) as door:
                if not line.ready.wait(TOOL_S_MAX):
                    raise RuntimeError("the enrolment desk does not reach the broker")
                yield code, door.port
        finally:
            line.stop()
    finally:
        store.close()
