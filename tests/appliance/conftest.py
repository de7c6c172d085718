"""What every test of the appliance stands on: the image, a box that was enrolled once, and a moment to go on from.

The box boots and enrols once a run.  A test's `shop` goes on from there: machine and host's side, both as they were.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.appliance.image import BuiltImage, NoImage
from tests.appliance.machine import Machine
from tests.appliance.ready import Ready, made_ready
from tests.appliance.shop import Doors, Shop

TEST_S_MAX = 420


@pytest.fixture(scope="session")
def image() -> BuiltImage:
    try:
        return BuiltImage.found()
    except NoImage as why:
        pytest.fail(str(why), pytrace=False)


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where cards and machines of this run stand; TILLBOX_ROOM names a disk with room for them."""
    named = os.environ.get("TILLBOX_ROOM")
    if not named:
        return tmp_path_factory.mktemp("appliance")
    folder = Path(named)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def doors() -> Iterator[Doors]:
    made = Doors()
    yield made
    made.close()


@pytest.fixture(scope="session")
def ready(image: BuiltImage, room: Path, doors: Doors) -> Ready:
    return made_ready(image, room, doors)


@pytest.fixture
def shop(ready: Ready, doors: Doors, tmp_path: Path) -> Iterator[Shop]:
    """The counter, open, with its enrolled box as it was when it had just become ready; the printer is plugged in."""
    folder = tmp_path / "shop"
    shutil.copytree(ready.frozen, folder)
    one, machine = Shop(folder, doors), ready.machine()
    try:
        one.start()
        machine.start(snapshot=ready.SNAPSHOT)
        machine.rig.await_up(60)
        machine.rig.set_clock()
        one.stand(machine)
        yield one
    finally:
        machine.end()
        one.stop()


@pytest.fixture
def machine(shop: Shop) -> Machine:
    return shop.machine


@pytest.fixture(autouse=True)
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test lasts longer than its `limit` mark says, or TEST_S_MAX: an emulated machine that hangs must not hang the run."""
    mark = request.node.get_closest_marker("limit")
    seconds = mark.args[0] if mark else TEST_S_MAX

    def late(*_: Any) -> None:
        raise AssertionError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that failed tells what the box said last."""
    outcome: Any = yield
    report = outcome.get_result()
    shop = getattr(item, "funcargs", {}).get("shop")
    if report.when == "call" and report.failed and isinstance(shop, Shop) and getattr(shop, "machine", None) is not None:
        told = bytes(shop.machine.console.heard[-2000:]).decode("utf-8", "replace")
        try:
            told += shop.machine.rig.sh("journalctl -b --no-pager -n 60 -o short-monotonic", within_s=20, fine=True)
        except (RuntimeError, AttributeError):
            told += "\n(the machine does not answer any more)"
        report.sections.append(("what the box said last", told))
