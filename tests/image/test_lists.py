"""The image's lists: each name has its reason, and what they promise holds against the locks."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

from image import kernel, lists, lock, wheels
from tests import ROOT

LISTS = ("packages.list", "wheels.list", "modules.list", "trim.list")


@pytest.mark.parametrize("text, why", [
    ("usblp\n", "no reason"), ("usblp #\n", "no reason"), ("two names # of one reason\n", "one name a line"),
    ("usblp # printer\nevdev # scanner\nusblp # again\n", ":3: usblp is there already"),
])
def test_a_line_without_a_reason_is_refused(text: str, why: str) -> None:
    with pytest.raises(lists.ListError, match=why):
        lists.lines(text)


def test_a_name_may_stand_in_two_sections() -> None:
    found = lists.lines("[tree]\nkmod # modules\n[unpacked]\nkmod # files\n")
    assert [tuple(line) for line in found] == [("tree", "kmod", "modules"), ("unpacked", "kmod", "files")]


@pytest.mark.parametrize("name", LISTS)
def test_our_own_lists_read(name: str) -> None:
    assert len(lists.lines((lists.HERE / name).read_text(), name)) > 20


def test_no_module_of_the_tests_is_on_a_box() -> None:
    """A test's devices made of software come with the test: dummy_hcd would let a program plug in a keyboard."""
    of_tests = {"dummy_hcd", "libcomposite", "uinput", "uhid", "usb_f_hid", "usb_f_printer", "sch_netem"}
    assert set(lists.names("modules.list")) & of_tests == set()


def test_every_package_asked_for_is_locked() -> None:
    locked = lock.read().debs
    asked = lists.names("packages.list", "tree") + lists.names("packages.list", "unpacked")
    assert [name for name in asked if name not in locked] == []
    assert kernel.release() == locked[f"linux-image-{kernel.release()}"].name.removeprefix("linux-image-")


def test_neither_login_nor_compiler_is_among_them() -> None:
    assert {"openssh-server", "gcc", "sudo", "python3-pip", "initramfs-tools"} & lock.read().debs.keys() == set()


def test_the_wheels_are_what_the_program_asks_for_and_what_that_leans_on() -> None:
    asked = {name for name, requirement in _needed("tillbox") if "extra ==" not in requirement}
    wanted, waiting = set(), sorted(asked)
    left_out = set(lists.names("wheels.list", "left out"))
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted.add(name)
        if name not in left_out:
            waiting += [further for further, requirement in _needed(name) if "extra ==" not in requirement]
    here = {name for name in wanted if _installed(name)}         # others are for another Python or system
    assert here == set(lists.names("wheels.list", "wheels")) | left_out


def _needed(name: str) -> list[tuple[str, str]]:
    try:
        found = importlib.metadata.distribution(name).requires or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [(wheels.canonical(re.match(r"[A-Za-z0-9._-]+", one)[0]), one) for one in found]  # type: ignore[index]


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_each_wheel_is_pinned_by_the_projects_own_lock() -> None:
    names = lists.names("wheels.list", "wheels")
    text = wheels.pinned((ROOT / "requirements.lock").read_text(), names)
    assert sorted(re.findall(r"(?m)^([a-z0-9-]+)==", text)) == sorted(names)
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z])", text.strip()))


def test_a_lock_reads_as_it_was_written() -> None:
    locked = lock.read()
    assert lock.parsed(lock.written(locked)) == locked
    assert locked.epoch > 1_700_000_000
    with pytest.raises(ValueError, match="no date"):
        lock.parsed("# nothing\n")
    with pytest.raises(ValueError, match="no sha256"):
        lock.parsed("# date: 2026-11-24T00:00:00Z\nkmod arm64 1 abc\n")


def test_a_package_that_moved_is_named() -> None:
    locked = lock.read().debs
    found = {name: deb.version for name, deb in locked.items()}
    assert lock.moved(locked, found) == []
    old = found["kmod"]
    found["kmod"], found["vim"] = "99", "1"
    del found["udev"]
    assert lock.moved(locked, found) == [
        f"kmod moved from {old} to 99", f"udev {locked['udev'].version} is in the lock and not in the tree",
        "vim 1 is in the tree and not in the lock"]
