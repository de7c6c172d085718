"""`python -m tests.golden [WORD …]`: rebuild the golden pictures, all or those whose maker's name has a word of these.

Each maker is `module:function`; the function gives {file name: PNG bytes} for the folder of its name.  Look at `git diff` of the
pictures before you keep them: that is what they are for.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
MAKERS = {"receipts": "tests.golden.receipt_papers:pictures", "displays": "tests.golden.display_frames:pictures"}


def made(name: str) -> dict[str, bytes]:
    """The pictures that maker `name` gives now."""
    module, function = MAKERS[name].split(":")
    return getattr(importlib.import_module(module), function)()


def rebuild(name: str) -> list[str]:
    """Write them into the folder of that name, and take away what is made no more; the names that changed."""
    folder, fresh = HERE / name, made(name)
    folder.mkdir(exist_ok=True)
    changed = [file for file, png in fresh.items() if not (folder / file).exists() or (folder / file).read_bytes() != png]
    for file in changed:
        (folder / file).write_bytes(fresh[file])
    for old in folder.glob("*.png"):
        if old.name not in fresh:
            old.unlink()
            changed.append(old.name)
    return changed


def main(words: list[str]) -> int:
    for name in MAKERS:
        if not words or any(word in name for word in words):
            print(f"{name}: {', '.join(rebuild(name)) or 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
