"""Where the files of systemd/ go, and what enabling one means."""

from __future__ import annotations

import pytest

from image import units
from tests import ROOT

FOLDER = ROOT / "systemd"


def test_a_manifest_is_read() -> None:
    found = units.parsed("# words\nall a.service /usr/lib/systemd/system/\nimage image/x.conf /etc/y.conf\n"
                         "enable a.service b.timer\nmask getty.target\nlink /etc/r /run/r\n")
    assert found.everywhere == [("a.service", "usr/lib/systemd/system/a.service")]
    assert found.image == [("image/x.conf", "etc/y.conf")]
    assert (found.enabled, found.masked, found.links) == (["a.service", "b.timer"], ["getty.target"], {"etc/r": "/run/r"})


def test_a_line_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match="everywhere a.service"):
        units.parsed("everywhere a.service /x/\n")


def test_enabling_links_what_install_says() -> None:
    text = "[Unit]\nWantedBy=not this\n[Install]\nWantedBy=dev-%i.device multi-user.target\nAlso=b.socket\nAlias=dbus-x.service\n"
    assert units.links("console@ttyAMA0.service", text) == {
        "links": ["dev-ttyAMA0.device.wants/console@ttyAMA0.service", "multi-user.target.wants/console@ttyAMA0.service",
                  "dbus-x.service"],
        "also": ["b.socket"]}
    assert units.template("console@ttyAMA0.service") == "console@.service"
    assert units.template("tillbox.service") == "tillbox.service"


def test_every_unit_of_ours_has_its_place() -> None:
    manifest = units.parsed((FOLDER / "MANIFEST").read_text())
    said = [file for file, _ in (*manifest.everywhere, *manifest.image)]
    here = [str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file() and path.name != "MANIFEST"]
    assert sorted(said) == sorted(here)
    assert len(set(said)) == len(said)
