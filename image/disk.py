"""The whole disk, as it is written to a card: boot state, boot partition, both slots, room for the data.  Made by genimage."""

from __future__ import annotations

import shutil
from pathlib import Path

from image import layout
from image.commands import run
from image.slot import fat

BOOT_ID = "7411b007"
DISK_ID = "0x4c4c4954"                           # TILL: how the initrd knows the card


def config(boot: str, slot: str, out: str, state: str | None = None) -> str:
    """genimage's description of the disk."""
    boot_part, slot_a, slot_b, data = layout.disk()
    said = [f'image {out} {{', '  hdimage {', '    partition-table-type = "mbr"', f'    disk-signature = {DISK_ID}',
            '    align = 1M', '  }']
    if state is not None:
        said += ['  partition state {', '    in-partition-table = false', f'    offset = {layout.STATE_SECTORS[0] * layout.SECTOR}',
                 f'    image = "{state}"', '  }']
    for part, kind, image in ((boot_part, "0x0c", boot), (slot_a, "0x83", slot), (slot_b, "0x83", slot), (data, "0x83", None)):
        said += [f'  partition {part.name} {{', f'    partition-type = {kind}', f'    offset = {part.offset}',
                 f'    size = {part.size}', *([f'    image = "{image}"'] if image else []),
                 *(['    bootable = true'] if part is boot_part else []), '  }']
    return "\n".join([*said, "}"]) + "\n"


def built(boot_files: dict[str, bytes | Path], slot: Path, state: bytes | None, work: Path, out: Path, epoch: int) -> None:
    """Write the disk image to `out`, sparse.  `state`: what lies from the first state sector on, or None for nothing yet."""
    place = work / "disk"
    shutil.rmtree(place, ignore_errors=True)
    for name in ("in", "root", "tmp", "out"):
        (place / name).mkdir(parents=True)
    fat(place / "in/boot.vfat", layout.BOOT_SIZE, boot_files, "TILLBOOT", BOOT_ID, epoch)
    (place / "in/slot").symlink_to(slot.resolve())
    if state is not None:
        (place / "in/state").write_bytes(state)
    (place / "genimage.cfg").write_text(config("boot.vfat", "slot", out.name, "state" if state is not None else None))
    run("genimage", "--rootpath", place / "root", "--tmppath", place / "tmp", "--inputpath", place / "in",
        "--outputpath", place / "out", "--config", place / "genimage.cfg", epoch=epoch, cwd=place)
    out.unlink(missing_ok=True)
    with (place / "out" / out.name).open("rb") as made, out.open("wb") as target:
        while piece := made.read(layout.MIB):                # zeros become holes
            target.seek(len(piece), 1) if not piece.strip(b"\0") else target.write(piece)
        target.truncate(layout.disk()[-1].offset + layout.disk()[-1].size)
    shutil.rmtree(place)
