"""Running the tools that do the work.  Knows how to start one in a plain surrounding and how to say what went wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


class BuildError(RuntimeError):
    """The image cannot be built; one sentence for a person."""


def say(words: str) -> None:
    print(f"image: {words}", file=sys.stderr, flush=True)


def plain(epoch: int) -> dict[str, str]:
    """The surrounding every tool runs in: nothing of the person's language, zone or settings, and one fixed clock reading."""
    keep = {name: os.environ[name] for name in ("HOME", "TMPDIR", "http_proxy", "https_proxy", "no_proxy") if name in os.environ}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC",
            "SOURCE_DATE_EPOCH": str(epoch), **keep}


def run(*argv: str | Path, epoch: int = 0, cwd: Path | None = None, stdin: bytes | None = None,
        env: dict[str, str] | None = None) -> str:
    """What the tool printed.  BuildError with its own last words when it fails or is not installed."""
    words = [str(one) for one in argv]
    if shutil.which(words[0], path=plain(epoch)["PATH"]) is None:
        raise BuildError(f"{words[0]} is not installed; run setup/appliance.sh")
    done = subprocess.run(words, cwd=cwd, input=stdin, env={**plain(epoch), **(env or {})}, capture_output=True)
    if done.returncode:
        last = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()[-12:]
        raise BuildError(f"{' '.join(words[:3])} failed ({done.returncode}):\n  " + "\n  ".join(last))
    return done.stdout.decode("utf-8", "replace")
