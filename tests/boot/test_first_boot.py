"""What came with the card is taken over once, and is gone from where anybody could read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from device.appliance import first, tool
from device.appliance.first import Taken

SECRET = b"HOST:8884\nbox-1:7K3Q-SECRET\n"


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    folder = tmp_path / "boot" / "tillbox"
    (folder / "state").mkdir(parents=True)
    (folder / "BOX.TOML").write_text('lang = "en"\n')
    (folder / "enrol").write_bytes(SECRET)
    (folder / "wifi.conf").write_text('network={\n ssid="shop"\n psk="geheim geheim"\n}\n')
    (folder / "state" / "prices.csv").write_text("code,name\n")
    (folder / "state" / "record.key").write_text("somebody else's")
    (folder / "notes.txt").write_text("by hand")
    return tmp_path / "boot"


def taken(boot: Path, root: Path) -> Taken:
    work = Taken(boot, root)
    work.run()
    return work


def test_each_file_goes_to_its_place_and_is_private(boot: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    taken(boot, root)
    assert (root / "etc/tillbox/box.toml").read_text() == 'lang = "en"\n'
    assert (root / "var/lib/tillbox/enrol.wanted").read_bytes() == SECRET
    assert (root / "var/lib/tillbox/prices.csv").read_text() == "code,name\n"
    wifi = root / "etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
    assert "ctrl_interface=" in wifi.read_text() and 'psk="geheim geheim"' in wifi.read_text()
    for path in (wifi, root / "etc/tillbox/box.toml", root / "var/lib/tillbox/enrol.wanted"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not (root / "var/lib/tillbox/record.key").exists(), "a key is made in the box, and comes by no card"
    assert sorted(p.name for p in boot.rglob("*") if p.is_file()) == ["notes.txt", "record.key"], "what is not ours stays"


def test_secrets_are_overwritten_before_they_are_removed(boot: Path, tmp_path: Path) -> None:
    enrol = boot / "tillbox" / "enrol"
    kept = tmp_path / "still-held"
    kept.hardlink_to(enrol)
    taken(boot, tmp_path / "root")
    assert not enrol.exists() and kept.read_bytes() == bytes(len(SECRET))


def test_a_second_boot_takes_nothing_and_changes_nothing(boot: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    taken(boot, root)
    (root / "etc/tillbox/box.toml").write_text('lang = "zh"\n')
    assert taken(boot, root).told == []
    assert (root / "etc/tillbox/box.toml").read_text() == 'lang = "zh"\n'


def test_without_a_box_toml_the_box_waits_for_its_code(tmp_path: Path) -> None:
    from device.identity.waiting import unclaimed

    taken(tmp_path / "nothing", tmp_path / "root")
    path = tmp_path / "root/etc/tillbox/box.toml"
    path.write_text(path.read_text() + f'state_dir = "{tmp_path}"\n')
    config = unclaimed(str(path))
    assert config is not None and config.display.kind == "fb"


def test_a_cut_between_keeping_and_wiping_takes_it_again(boot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(first, "wipe", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            taken(boot, tmp_path / "root")
    assert (boot / "tillbox/BOX.TOML").exists()
    taken(boot, tmp_path / "root")
    assert (tmp_path / "root/var/lib/tillbox/enrol.wanted").read_bytes() == SECRET and not (boot / "tillbox/BOX.TOML").exists()


def test_links_and_monsters_are_left_alone(boot: Path, tmp_path: Path) -> None:
    (boot / "tillbox/enrol").unlink()
    (boot / "tillbox/enrol").symlink_to("/etc/hostname")
    with (boot / "tillbox/state/huge").open("wb") as file:
        file.truncate(first.FILE_BYTES_MAX + 1)
    taken(boot, tmp_path / "root")
    assert not (tmp_path / "root/var/lib/tillbox/enrol.wanted").exists()
    assert not (tmp_path / "root/var/lib/tillbox/huge").exists()


@pytest.mark.parametrize("port", ["", "ttyUSB0", '1-1"', "1-1.3\n", 3, None])
def test_no_port_makes_no_rule(port: object) -> None:
    assert tool.console_rule(port) == ""


def test_a_port_makes_one_line_for_udev() -> None:
    rule = tool.console_rule("1-1.3")
    assert rule.count("\n") == 1 and 'KERNELS=="1-1.3"' in rule and 'SYSTEMD_WANTS}+="tillbox-console@%k.service"' in rule
