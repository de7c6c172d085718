"""The image from its inputs to its last file.  Knows the order of the steps and what is written beside the image."""

from __future__ import annotations

import hashlib
import json
import posixpath
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from image import debs, disk, dpkg, kernel, lists, lock, program, sbom, slot, system, tree, wheels
from image.boot import initrd, part1
from image.commands import BuildError, say
from image.places import BUILD, cache, sha256
from image.root import Root

STATUS = "var/lib/dpkg/status"


class Wanted(NamedTuple):
    version: str
    out: Path = BUILD
    locked: bool = False                         # refuse an archive that has moved on
    board: str = "arm64"
    ratchet: int = 1                             # a box never goes back below the highest it has run
    update_keys: bytes | None = None             # whose updates this image takes; None: nobody's


def inputs(locked_only: bool) -> tuple[lock.Lock, Path, dict[str, Path]]:
    """The lock, the tree's tar and the unpacked packages' files.  Says which package moved; a BuildError if `locked_only`."""
    locked = lock.read()
    tar = tree.built(locked, locked.epoch)
    root = Root(locked.epoch)
    root.take(tar)
    beside = lists.names("packages.list", "unpacked")
    found = {one.name: one.version for one in dpkg.installed(root.read(STATUS).decode())}
    said = lock.moved({name: deb for name, deb in locked.debs.items() if name not in beside}, found)
    files: dict[str, Path] = {}
    apt = debs.Apt()
    if not all(apt.holds(locked.debs[name]) for name in beside if name in locked.debs):
        apt.update()
    for name in beside:
        if name in locked.debs and (apt.holds(locked.debs[name]) or (name, locked.debs[name].version) in apt.offered([name])):
            files[name] = apt.checked(locked.debs[name])
        else:
            newest = apt.newest(name)
            files[name] = apt.fetched(newest.name, newest.version)
            said += lock.moved({name: locked.debs[name]} if name in locked.debs else {}, {name: newest.version})
    for sentence in said:
        say(f"not as locked: {sentence}")
    if said and locked_only:
        raise BuildError("the archive has moved on; `make image ARGS=--lock` takes what it has now")
    return locked, tar, files


def relock() -> None:
    """Write debian.lock anew: what the archive has now."""
    epoch = int(time.time()) // 86400 * 86400
    apt = debs.Apt()
    apt.update()
    place = cache() / f"tree-{tree.key(None)}.tar"
    tar = tree.built(None, epoch)
    root = Root(epoch)
    root.take(tar)
    installed = {one.name: one.version for one in dpkg.installed(root.read(STATUS).decode())}
    offered = apt.offered(sorted(installed))
    if missing := [f"{name} {version}" for name, version in sorted(installed.items()) if (name, version) not in offered]:
        place.unlink()
        raise BuildError(f"the archive moved while the tree was made ({', '.join(missing)}); once more, please")
    found = {name: offered[name, version] for name, version in installed.items()}
    found |= {name: apt.newest(name) for name in lists.names("packages.list", "unpacked")}
    fresh = lock.Lock(epoch, found)
    lock.FILE.write_text(lock.written(fresh))
    place.rename(cache() / f"tree-{tree.key(fresh)}.tar")
    say(f"{lock.FILE.name}: {len(found)} packages")


def followed(root: Root) -> Callable[[str], bytes]:
    """Reads a file of the root; a link at its end is followed."""
    def read(path: str) -> bytes:
        while (target := root.link(path)) is not None:
            path = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target)).lstrip("/")
        return root.read(path)
    return read


def one(wanted: Wanted) -> dict[str, str]:
    """Build everything below `wanted.out`; sha256 by file name."""
    began = time.monotonic()

    def step(words: str) -> None:
        say(f"{time.monotonic() - began:6.1f} s  {words}")

    locked, tar, files = inputs(wanted.locked)
    epoch = locked.epoch
    out, work = wanted.out, wanted.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root = Root(epoch)
    root.take(tar)
    packages = dpkg.installed(root.read(STATUS).decode())
    read = followed(root)
    texts = {}
    for package in packages:
        for place in (f"usr/share/doc/{package.name}/copyright", f"usr/share/doc/{package.source}/copyright"):
            if place in root:
                texts[package.name] = read(place).decode("utf-8", "replace")
                break
    step(f"{len(packages)} Debian packages in the tree")

    by_kind = {("linux-image" if name.startswith("linux-image") else name): path for name, path in files.items()}
    cut = kernel.cut(by_kind["linux-image"], work)
    image = (cut / f"boot/vmlinuz-{kernel.release()}").read_bytes()
    start = initrd.build(read, cut, kernel.release(), epoch)
    step(f"kernel {kernel.release()}, initrd of {len(start):,} bytes")

    for file in sorted((cut / "lib/modules").rglob("*")):
        if file.is_file():
            root.file(f"usr/{file.relative_to(cut)}", file.read_bytes())
    firmware(root, by_kind, work)
    system.settle(root, wanted.version, wanted.board, wanted.ratchet, wanted.update_keys)
    program.install(root, work, epoch)
    step("program compiled")

    parts = dict(root.sizes(4))
    name = f"tillbox-{wanted.version}.slot"
    cmdline = slot.built(root, image, start, part1.dtbs(by_kind), wanted.version, out / name, epoch)
    step(f"{name}: {(out / name).stat().st_size:,} bytes")
    disk.built(dict(part1.files(by_kind, epoch)), out / name, None, work, out / "tillbox.img", epoch)
    step("tillbox.img")

    (out / "Image").write_bytes(image)
    (out / "initrd").write_bytes(start)
    (out / "cmdline").write_text(cmdline + "\n")
    shutil.copyfile(by_kind["linux-image"], out / "kernel.deb")
    (out / "disk.img").unlink(missing_ok=True)
    (out / "disk.img").symlink_to("tillbox.img")
    (out / f"tillbox-{wanted.version}.cdx.json").write_text(bill(wanted.version, locked, packages, texts, files))
    (out / "sizes.json").write_text(json.dumps(dict(sorted(parts.items(), key=lambda item: -item[1])), indent=1))
    shutil.rmtree(work)
    made = (name, "tillbox.img", "Image", "initrd", "cmdline", f"tillbox-{wanted.version}.cdx.json")
    sums = {path: sha256(out / path) for path in made}
    (out / "SHA256SUMS").write_text("".join(f"{digest}  {path}\n" for path, digest in sums.items()))
    step("done")
    return sums


def firmware(root: Root, by_kind: dict[str, Path], work: Path) -> None:
    """Wi-Fi's: what the chips load, and what the regulator allows, which the kernel asks for on every board."""
    for package, names in part1.WIFI.items():
        place = debs.files_of(by_kind[package], work / package)
        for name in names:
            file = place / name if (place / name).exists() or (place / name).is_symlink() else place / "usr" / name
            if file.is_symlink():
                root.symlink(f"usr/{name}", str(file.readlink()))
            else:
                root.file(f"usr/{name}", file.read_bytes())
    # The package has each file twice, by whose key signed it; the kernel is Debian's, and so is its key.
    place = debs.files_of(by_kind["wireless-regdb"], work / "wireless-regdb")
    for name in ("regulatory.db", "regulatory.db.p7s"):
        root.file(f"usr/lib/firmware/{name}", (place / f"lib/firmware/{name}-debian").read_bytes())


def bill(version: str, locked: lock.Lock, packages: list[dpkg.Installed], texts: dict[str, str], files: dict[str, Path]) -> str:
    """The bill of materials: Debian's packages, those unpacked beside, the wheels, our program."""
    said = [sbom.of_debian(one, locked.debs.get(one.name), dpkg.licences(texts.get(one.name, ""))) for one in packages]
    for name, path in files.items():
        with tempfile.TemporaryDirectory() as place:
            debs.files_of(path, Path(place))
            copyright_file = Path(place) / f"usr/share/doc/{name}/copyright"
            words = copyright_file.read_text(errors="replace") if copyright_file.exists() else ""
        _, version_of, arch = path.stem.replace("%3a", ":").rsplit("_", 2)
        said.append(sbom.of_debian(dpkg.Installed(name, version_of, arch, name, ""), locked.debs.get(name), dpkg.licences(words)))
    for wheel in wheels.fetched():
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA") and one.count("/") == 1)
            said.append(sbom.of_wheel(wheel.name, sha256(wheel), archive.read(metadata).decode()))
    ours = hashlib.sha256()
    for source in program.sources():
        ours.update(source.encode() + b"\0" + hashlib.sha256((program.REPOSITORY / source).read_bytes()).digest())
    said.append({"type": "application", "bom-ref": f"pkg:generic/tillbox@{version}", "name": "tillbox", "version": version,
                 "purl": f"pkg:generic/tillbox@{version}", "hashes": [{"alg": "SHA-256", "content": ours.hexdigest()}]})
    return sbom.document(version, locked.epoch, said)
