"""The doctor's look at the journal's second copy: there, whole, level with the journal, and on another card.

Beside a living daemon only whether it is there: the daemon compares the rest at its start and guards it since.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from device.doctor.look import Finding, Look, found
from device.store_forward.second_copy import looked_at


def copy(look: Look) -> Iterator[Finding]:
    folder = Path(look.config.state_dir, "training/second") if look.config.training else Path(look.config.second_copy_dir)
    if not look.journal_path.exists():
        return
    there = any(folder.glob("copy-*.seg"))
    if there and os.stat(folder).st_dev == os.stat(look.config.state_dir).st_dev:
        yield found("copy_same_card", "second_copy", f"The second copy {folder} lies on the same card as the journal: it "
                    "survives a rotten file, and not a dead card.")
    if look.running:
        if (look.said.health if look.said is not None else {}).get("second_copy", "ok") == "ok" and not there:
            yield found("copy_gone", "second_copy", f"There is no second copy in {folder}, and the daemon believes that there is.",
                        "restart the box between two customers: it lays the copy anew; then find out who took it")
        return
    if look.books is None or not look.copied:
        return                                           # no journal that folds, or one that never had a copy
    if not there:
        yield found("copy_gone", "second_copy", f"There is no second copy in {folder}.",
                    "start the box: it lays the copy anew; look at its partition")
        return
    try:
        held = looked_at(folder, f"{'training' if look.config.training else 'real'} {look.config.box}")
    except OSError as why:
        yield found("copy_gone", "second_copy", f"The second copy in {folder} cannot be read: {why.strerror}.")
        return
    if held.broken or not held.rows:
        yield found("copy_damaged", "second_copy", f"The second copy in {folder} cannot be read through to its end.")
    elif held.lineage != look.copied:
        yield found("copy_behind", "second_copy", f"The second copy in {folder} is an older one than the journal names.")
    elif held.last < look.last_row:
        yield found("copy_behind", "second_copy", f"The second copy in {folder} ends {look.last_row - held.last} rows before "
                    "the journal.")
    elif held.last > look.last_row:
        yield found("journal_short", "journal", f"The journal lacks the last {held.last - look.last_row} rows of its second copy "
                    f"in {folder}.")
