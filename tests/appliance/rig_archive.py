"""The rig's archive, to be laid behind the image's initrd: the kernel unpacks both, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from image.boot.cpio import archive, file, squeezed

RIG = Path(__file__).with_name("rig")


def rig_archive(more: Mapping[str, bytes] | None = None) -> bytes:
    """The rig's files under /rig, and `more` of them by name."""
    entries = {f"rig/{each.name}": file(each.read_bytes(), 0o755 if each.name == "start" else 0o644)
               for each in RIG.iterdir() if each.is_file()}
    return squeezed(archive(entries | {f"rig/{name}": file(data) for name, data in (more or {}).items()}))


def appended(initrd: Path, to: Path, more: Mapping[str, bytes] | None = None) -> Path:
    """`initrd` with the rig behind it, written to `to`."""
    whole = initrd.read_bytes()
    to.write_bytes(whole + bytes(-len(whole) % 4) + rig_archive(more))
    return to
