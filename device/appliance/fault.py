"""What keeps this box from its data partition: said once by whoever found it, read by the till, the console and the doctor.

One small file in /run, gone with the boot.  Knows no partition; loads nothing, for every start looks here.
"""

from __future__ import annotations

import os
from pathlib import Path

PATH = "/run/till/fault"
BYTES_MAX = 4096


def said(root: str | Path = "/") -> tuple[str, str] | None:
    """(code, sentence), or None when nothing is wrong."""
    import json

    try:
        with open(os.path.join(root, PATH[1:]), "rb") as file:
            held = json.loads(file.read(BYTES_MAX))
        return str(held["code"]), str(held["sentence"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return "data_gone", "The data partition cannot be used, and what was said of it cannot be read."


def say(code: str, sentence: str, root: str | Path = "/") -> None:
    """The first word stands: what is found later follows from it."""
    import json

    path = Path(root, PATH[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    draft = path.with_name(".fault.new")
    draft.write_text(json.dumps({"code": code, "sentence": sentence}))
    draft.chmod(0o644)
    os.replace(draft, path)
