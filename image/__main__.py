"""`python -m image`: build the appliance's image into build/image/; `make image` calls it.  Speaks on standard error."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from device import __version__
from image import build, sizes
from image.commands import BuildError, say
from image.places import BUILD


def main(argv: list[str] | None = None) -> int:
    """0 when the image is there; 1 with one sentence when it could not be built, or when two builds differ."""
    asked = argparse.ArgumentParser(prog="python -m image", description="Build the appliance's image.")
    asked.add_argument("--out", type=Path, default=BUILD, help="folder for the image and what belongs to it (build/image)")
    asked.add_argument("--version", default=__version__, help="what the image calls itself")
    asked.add_argument("--ratchet", type=int, default=1, help="a box never goes back to an image with a smaller one")
    asked.add_argument("--board", default="arm64")
    asked.add_argument("--update-jwks", type=Path, default=os.environ.get("UPDATE_JWKS"),
                       help="public keys whose updates the image takes")
    asked.add_argument("--locked", action="store_true", help="refuse when Debian's archive has moved on from image/debian.lock")
    asked.add_argument("--lock", action="store_true", help="write image/debian.lock anew, from what the archive has now")
    asked.add_argument("--twice", action="store_true", help="build a second time and compare every byte")
    asked.add_argument("--sizes", action="store_true", help="what takes room in the image just built")
    words = asked.parse_args(argv)
    try:
        if words.lock:
            build.relock()
        if words.lock or words.sizes:
            if words.sizes:
                print(sizes.table(words.out))
            return 0
        keys = Path(words.update_jwks).read_bytes() if words.update_jwks else None
        wanted = build.Wanted(words.version, words.out.resolve(), words.locked, words.board, words.ratchet, keys)
        first = build.one(wanted)
        print(sizes.table(words.out))
        if words.twice:
            second = build.one(wanted._replace(out=wanted.out / "again"))
            if differ := [name for name in first if first[name] != second[name]]:
                say(f"two builds differ in {', '.join(differ)}; the second is in {wanted.out / 'again'}")
                return 1
            import shutil
            shutil.rmtree(wanted.out / "again")
            say("two builds, one result: every sum is the same")
        for name, digest in first.items():
            print(f"{digest}  {name}")
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
