"""Small files of a counter's folder: private, and never seen half written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(file: Path, data: bytes) -> None:
    """Replace `file`, mode 0600.  A power cut of the machine itself may lose it: nothing here is worth a wait for the disk."""
    new = file.with_name(file.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
    os.replace(new, file)


def toml(table: dict[str, Any], at: str = "") -> str:
    """`table` as TOML: texts, whole numbers, flags, lists of texts, tables, and lists of tables."""
    own = {name: value for name, value in table.items() if not _is_table(value)}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in own.items()]      # TOML takes JSON's escapes
    for name, value in table.items():
        if _is_table(value):
            for one in value if isinstance(value, list) else [value]:
                head = f"[[{at}{name}]]" if isinstance(value, list) else f"[{at}{name}]"
                lines += ["", head, toml(one, f"{at}{name}.")]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
