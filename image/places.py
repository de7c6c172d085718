"""Where things lie: the repository, the cache, what is built.  Knows paths and the build's one clock reading."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HERE = REPOSITORY / "image"
BUILD = REPOSITORY / "build" / "image"
ARCH = "arm64"


def cache() -> Path:
    """`${TILLBOX_CACHE:-~/.cache/tillbox}/image`, made if need be.  Whatever lies there is named by a hash of its inputs."""
    folder = Path(os.environ.get("TILLBOX_CACHE") or Path.home() / ".cache" / "tillbox") / "image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
