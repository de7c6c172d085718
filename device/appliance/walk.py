"""The box's own chain of records, walked over once after a start and then once a day; the doctor reads what came of it.

The daemon walks, some records at a time beside its sales, for it alone has the journal; this only asks it, and keeps the answer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

FILE = "walked.json"
ASK_S = 120.0


def walked(config_path: str) -> int:
    """Exit status: 0 whole, 1 not, 3 when nobody walks (the daemon is away, or waits for its enrolment)."""
    from device.console import place
    from device.console.asking import told

    here = place.at(config_path)
    said = told(here, "journal verify", timeout_s=ASK_S)
    if said is None:
        print("tillbox appliance walk: the daemon does not answer", flush=True)
        return 3
    answer: dict[str, Any] = said["answer"]
    keep(here.state_dir, answer, time.time())
    print(f"walked over {answer['records']} records: {'whole' if answer['whole'] else 'NOT whole'}", flush=True)
    return 0 if answer["whole"] else 1


def keep(state_dir: Path, answer: dict[str, Any], at: float) -> None:
    """OSError."""
    from device.drivers import private_file
    held = {"at": int(at), "whole": bool(answer["whole"]), "finished": bool(answer.get("finished", True)),
            "records": int(answer["records"]), "defects": list(answer.get("defects", ()))[:3]}
    private_file.replace(state_dir / FILE, json.dumps(held).encode())


def last(state_dir: str | Path) -> dict[str, Any] | None:
    """What `keep` kept; None before the first walk, or of a file that is none."""
    try:
        held = json.loads((Path(state_dir) / FILE).read_bytes())
        return held if isinstance(held, dict) and isinstance(held.get("whole"), bool) else None
    except (OSError, ValueError):
        return None
