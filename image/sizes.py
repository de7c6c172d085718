"""What takes room in the image.  Reads what the build wrote; pure but for that."""

from __future__ import annotations

import json
from pathlib import Path

MIB = 1 << 20
# First that fits counts.
PARTS = (
    ("our program and Python packages", ("opt/tillbox",)),
    ("Python", ("usr/lib/python3", "usr/bin/python3")),
    ("kernel modules", ("usr/lib/modules",)),
    ("Wi-Fi firmware", ("usr/lib/firmware",)),
    ("systemd and udev", ("usr/lib/systemd", "usr/lib/udev", "usr/lib/aarch64-linux-gnu/systemd", "usr/bin/systemctl",
                          "usr/bin/udevadm", "usr/bin/journalctl", "usr/bin/resolvectl", "usr/bin/networkctl",
                          "usr/lib/aarch64-linux-gnu/libsystemd")),
    ("fonts", ("usr/share/fonts",)),
    ("time zones", ("usr/share/zoneinfo",)),
    ("other libraries", ("usr/lib",)),
    ("other programs", ("usr/bin", "usr/sbin", "usr/libexec")),
    ("everything else", ("",)),
)


def by_part(sizes: dict[str, int]) -> dict[str, int]:
    """Bytes of files by part, largest first."""
    found = dict.fromkeys((name for name, _ in PARTS), 0)
    for path, size in sizes.items():
        found[next(name for name, heads in PARTS if path.startswith(heads))] += size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def table(out: Path) -> str:
    """Lines for a person: unpacked size of each part, then the files that were made."""
    parts = by_part(json.loads((out / "sizes.json").read_text()))
    said = [f"{size / MIB:8.1f} MiB  {name}" for name, size in parts.items()]
    said.append(f"{sum(parts.values()) / MIB:8.1f} MiB  together, unpacked")
    for path in sorted(out.iterdir()):
        if path.is_file() and path.suffix in (".slot", ".img", "") and path.name not in ("SHA256SUMS", "cmdline"):
            said.append(f"{path.stat().st_size / MIB:8.1f} MiB  {path.name}")
    return "\n".join(said)
