"""The root in the making: a tar in, the same tar out whoever builds it, and nothing of the builder's in it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from image import system
from image.root import Root

EPOCH = 1_700_000_000


def tar_of(path: Path, *, mtime: int, backwards: bool = False) -> Path:
    """A small tree: a file, a second name of it, a link, a folder, another's file."""
    entries = [("./etc", tarfile.DIRTYPE, b"", ""), ("./etc/one", tarfile.REGTYPE, b"one\n", ""),
               ("./etc/link", tarfile.SYMTYPE, b"", "one"),
               ("./usr", tarfile.DIRTYPE, b"", ""), ("./usr/perl5.36", tarfile.REGTYPE, b"perl", ""),
               ("./usr/perl", tarfile.LNKTYPE, b"", "./usr/perl5.36")]
    if backwards:
        entries = [entries[3], entries[4], entries[5], entries[0], entries[2], entries[1]]
    with tarfile.open(path, "w") as tar:
        for name, kind, content, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mtime, info.uname = kind, len(content), target, mtime, f"builder{mtime}"
            info.mode, info.gid = (0o755 if kind == tarfile.DIRTYPE else 0o640), 42
            tar.addfile(info, io.BytesIO(content))
    return path


def made(tree: Path) -> bytes:
    root = Root(EPOCH)
    root.take(tree)
    out = io.BytesIO()
    root.write(out)
    return out.getvalue()


def test_order_time_and_builder_leave_no_trace(tmp_path: Path) -> None:
    one, two = made(tar_of(tmp_path / "1", mtime=1)), made(tar_of(tmp_path / "2", mtime=99, backwards=True))
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert {member.mtime for member in tar} == {EPOCH}
        assert tar.getmember("etc/one").gid == 42 and tar.getmember("etc/one").mode == 0o640


def test_a_second_name_of_a_file_is_a_file(tmp_path: Path) -> None:
    root = Root(EPOCH)
    root.take(tar_of(tmp_path / "t", mtime=1))
    root.drop("usr/perl5*")
    assert root.read("usr/perl") == b"perl" and "usr/perl5.36" not in root
    with pytest.raises(KeyError):
        root.read("etc/link")
    assert root.link("etc/link") == "one"


def test_what_is_dropped_is_gone_with_all_below(tmp_path: Path) -> None:
    root = Root(EPOCH)
    root.take(tar_of(tmp_path / "t", mtime=1))
    assert sorted(root.drop("etc/*")) == ["etc/link", "etc/one"]
    assert root.paths() == ["etc", "usr", "usr/perl", "usr/perl5.36"]


def test_a_new_file_brings_its_folders() -> None:
    root = Root(EPOCH)
    root.file("opt/tillbox/bin/tillbox", b"#!", 0o755)
    assert root.paths() == ["opt", "opt/tillbox", "opt/tillbox/bin", "opt/tillbox/bin/tillbox"]
    assert dict(root.sizes(2)) == {"opt/tillbox": 2}


def test_users_get_numbers_that_an_update_does_not_move() -> None:
    root = Root(EPOCH)
    for name in ("passwd", "group", "shadow", "gshadow"):
        root.file(f"etc/{name}", b"root:*:0:0::/root:/usr/sbin/nologin\n")
    root.file("usr/lib/sysusers.d/tillbox.conf", b'# ours\nu tillbox - "Tillbox, the till" /var/lib/tillbox /usr/sbin/nologin\n')
    system.users(root)
    system.users(root)
    assert root.read("etc/passwd").decode().splitlines()[1:] == ["tillbox:x:800:800:Tillbox:/var/lib/tillbox:/usr/sbin/nologin"]
    assert root.read("etc/shadow").decode().splitlines()[1:] == ["tillbox:!*:1::::::"]


def test_a_user_without_a_number_stops_the_build() -> None:
    root = Root(EPOCH)
    root.file("usr/lib/sysusers.d/tillbox-new.conf", b"u somebody -\n")
    with pytest.raises(system.BuildError, match="somebody has no number"):
        system.users(root)
