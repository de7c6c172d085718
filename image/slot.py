"""One slot image: a FAT head with kernel and initrd, the root as squashfs, its verity hashes.  An update writes it as it is.

Knows the tools that make the three parts and how to make each twice the same.  Runs as any user: nothing is mounted.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from image import layout
from image.boot.u_boot import checksum
from image.commands import run
from image.root import Root

# Not secret: a salt makes two boxes' equal blocks hash differently, which nobody here wants.
SALT = "7469" * 16
HEAD_ID = "7411b0a0"                             # the FAT's serial number
# The boot script adds `till.slot=` and `till.disk=` alone.
CMDLINE = "console=ttyAMA0,115200 quiet loglevel=4 panic=10 vt.global_cursor_default=0 consoleblank=0 systemd.show_status=0"


def squashed(root: Root, out: Path, epoch: int) -> None:
    """The root as a squashfs file."""
    out.unlink(missing_ok=True)
    tar = out.with_suffix(".tar")
    with tar.open("wb") as file:
        root.write(file)
    # One block size: larger packs better and reads more of the card for one small file.
    run("sh", "-c", 'exec mksquashfs - "$1" -tar -quiet -no-progress -comp zstd -Xcompression-level 15 -b 128K -no-xattrs <"$2"',
        "sh", out, tar, epoch=epoch)
    tar.unlink()


def fat(out: Path, size: int, files: dict[str, bytes | Path], label: str, serial: str, epoch: int) -> None:
    """A FAT file system of `size` bytes with these files, in this order; the same bytes every time."""
    out.unlink(missing_ok=True)
    with out.open("wb") as file:
        file.truncate(size)
    run("mkfs.vfat", "--invariant", "-i", serial, "-n", label, "-s", "4", "-F", "16", out, epoch=epoch)
    stage = out.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    folders: set[str] = set()
    for name, content in files.items():
        path = stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content)
        os.utime(path, (epoch, epoch))
        for above in reversed([str(one) for one in Path(name).parents if str(one) != "."]):
            if above not in folders:
                folders.add(above)
                run("mmd", "-i", out, f"::{above}", epoch=epoch)
        run("mcopy", "-m", "-i", out, path, f"::{name}", epoch=epoch)
    shutil.rmtree(stage, ignore_errors=True)


def verity(image: Path, parts: layout.Slot) -> str:
    """Write the hash area into the slot image; the root hash, 64 hex digits."""
    said = run("veritysetup", "format", "--no-superblock", f"--salt={SALT}", "--data-block-size=4096", "--hash-block-size=4096",
               "--hash=sha256", f"--data-blocks={parts.data_size // layout.BLOCK}", f"--hash-offset={parts.hash}",
               f"{image}.data", image)
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", said)
    assert found, said
    return found[1]


def verity_words(parts: layout.Slot, root_hash: str) -> str:
    """How the initrd opens the root: the kernel's command line says all of it."""
    return f"till.root={root_hash} till.salt={SALT} till.data={parts.data} till.size={parts.data_size} till.hash={parts.hash}"


def slot_env(version: str, cmdline: str, kernel: bytes, initrd: bytes) -> str:
    """What U-Boot reads of a slot: plain `key=value` lines.  The checksums are those of the files beside it, as U-Boot has them."""
    said = {"version": version, "cmdline": cmdline, "image_crc": checksum(kernel), "initrd_crc": checksum(initrd)}
    return "".join(f"{key}={value}\n" for key, value in said.items())


def built(root: Root, kernel: bytes, initrd: bytes, dtbs: dict[str, bytes], version: str, out: Path, epoch: int) -> str:
    """Write the slot image to `out`; the command line that starts it (all but `till.slot=`)."""
    squashfs = out.with_suffix(".squashfs")
    squashed(root, squashfs, epoch)
    parts = layout.slot(squashfs.stat().st_size)
    with squashfs.open("r+b") as file:
        file.truncate(parts.data_size)
    out.unlink(missing_ok=True)
    with out.open("wb") as file:
        file.truncate(parts.size)
    data = Path(f"{out}.data")
    squashfs.rename(data)
    root_hash = verity(out, parts)
    cmdline = f"{CMDLINE} {verity_words(parts, root_hash)}"
    head = out.with_suffix(".head")
    # The kernel first, at a fixed place: while it stays the same, so do these bytes, and an update need not send them.
    files: dict[str, bytes | Path] = {"Image": kernel, "initrd": initrd}
    files |= {f"dtb/{name}": content for name, content in sorted(dtbs.items())}
    files["slot.env"] = slot_env(version, cmdline, kernel, initrd).encode()
    fat(head, layout.HEAD_SIZE, files, "TILLSLOT", HEAD_ID, epoch)
    with out.open("r+b") as file:
        for part, at in ((head, 0), (data, parts.data)):
            file.seek(at)
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, layout.MIB)
            part.unlink()
    return cmdline
