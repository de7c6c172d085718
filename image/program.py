"""Our program as the box has it: /opt/tillbox, a virtual environment laid by hand on Debian's python3.

Knows which of the repository's files belong on a box: `device/`, and nothing of sim, fleet, tests, docs.  Compiled beforehand with
hashes that nobody checks at start: the root is read-only, and a file's time says nothing in it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from image import wheels
from image.commands import BuildError, run
from image.places import ARCH, REPOSITORY
from image.root import Root

HOME = "opt/tillbox"
SITE = f"{HOME}/lib/python3.11/site-packages"
COMMAND = f"#!/{HOME}/bin/python3\nimport sys\n\nfrom device.__main__ import main\n\nsys.exit(main())\n"
SETTINGS = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n"


def sources(repository: Path = REPOSITORY) -> list[str]:
    """Our own files that go to the box, by path in the repository."""
    listed = subprocess.run(["git", "-C", repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "device"],
                            capture_output=True)
    if listed.returncode == 0:
        found = [name for name in listed.stdout.decode().split("\0") if name]
    else:                                                    # a tarball of the source, not a clone
        found = [str(path.relative_to(repository)) for path in (repository / "device").rglob("*") if path.is_file()]
    return sorted(name for name in found if "__pycache__" not in name and (repository / name).is_file())


def laid(into: Path, arch: str = ARCH) -> None:
    """The files of /opt/tillbox below `into`: wheels and ours, not yet compiled."""
    site = into / SITE
    site.mkdir(parents=True)
    wheels.unpacked(wheels.fetched(arch), site)
    for name in sources():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, path)


def python311() -> str:
    """An interpreter whose compiled files the box's can read."""
    for name in ("/usr/bin/python3.11", "/usr/bin/python3", "python3.11", "python3"):
        asks = "import sys; sys.exit(sys.version_info[:2] != (3, 11))"
        if shutil.which(name) and subprocess.run([name, "-c", asks]).returncode == 0:
            return name
    raise BuildError("compiling for the box needs Python 3.11 (Debian 12's python3)")


def compiled(folder: Path, epoch: int) -> None:
    """Every .py below `folder` (a root) compiled beside itself; a file that is no Python of 3.11 is left as it is."""
    run(python311(), "-I", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", folder,
        "-p", "/", folder, epoch=epoch, env={"PYTHONHASHSEED": "0"})


def install(root: Root, work: Path, epoch: int) -> None:
    """Put /opt/tillbox into the root; compile Debian's Python in it the same way."""
    stage = work / "program"
    laid(stage)
    root.drop("*/__pycache__", "*/__pycache__/*")
    debian = [path for path in root.paths()
              if path.endswith(".py") and path.startswith(("usr/lib/python3.11/", "usr/lib/python3/")) and root.link(path) is None]
    for path in debian:
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        (stage / path).write_bytes(root.read(path))
    compiled(stage, epoch)
    for file in sorted(stage.rglob("*")):
        path = str(file.relative_to(stage))
        if file.is_file() and path not in root:
            root.file(path, file.read_bytes(), 0o755 if ".so" in file.suffixes else 0o644)
    root.file(f"{HOME}/pyvenv.cfg", SETTINGS.encode())
    root.file(f"{HOME}/bin/tillbox", COMMAND.encode(), 0o755)
    for name in ("python", "python3", "python3.11"):
        root.symlink(f"{HOME}/bin/{name}", "/usr/bin/python3.11")
    for path in [path for path in root.paths() if path.startswith("usr/lib/python3/dist-packages/evdev")]:
        name = path.removeprefix("usr/lib/python3/dist-packages/")
        if "/" not in name:
            root.symlink(f"{SITE}/{name}", f"/{path}")
