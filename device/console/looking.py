"""Commands that only look: status, doctor, devices, queue, logs, the chain of records, the timeline of one order.

Asks the daemon while it lives, and reads what it left while it is dead.  Changes nothing, opens no journal for writing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device.console.asking import alive, printed, readable, told
from device.console.printing import table
from device.console.session import Call, Failed


def status(c: Call) -> Iterator[str]:
    yield (c.t("守护进程在运行。", "The daemon runs.") if alive(c.place) else
           c.t("守护进程没有运行，以下取自日志账。", "The daemon is dead; this is from its journal."))
    yield from _stated(c, state_of(c))


def queue(c: Call) -> Iterator[str]:
    state = state_of(c)
    rows = [(c.t("待上传", "records to send"), str(state.get("unacked", "?")), _age(state.get("oldest_unacked_s")))]
    rows += [(c.t("未决", "undecided"), str(one.get("order_no", "")), _few(one)) for one in state.get("parked", [])]
    rows += [(c.t("挂单", "held"), str(one.get("slot", one.get("n", ""))), _few(one)) for one in state.get("held", [])]
    rows += [(c.t("待打印", "to print"), str(one["job"]), f"{one['kind']} {one['state']} {one['since'][:19]}")
             for one in state.get("papers", [])]
    rows.append((c.t("控制台记录", "console entries"), str(c.spool.waiting()), ""))
    yield from table(rows, (16, 22))


def logs(c: Call) -> Iterator[str]:
    count = int(c.args or 40)
    said = told(c.place, "logs", count=count)
    if said is None:
        raise Failed("DAEMON", c.t("守护进程没有运行，日志在它的内存里；看 doctor",
                                   "the daemon is dead and its lines were in its memory; see doctor"))
    yield from said["lines"]


def devices(c: Call) -> Iterator[str]:
    config = c.place.config
    if config is None:
        raise Failed("CONFIG", c.t("box.toml 不能用，doctor 说明原因", "box.toml is refused; doctor says why"))
    said = told(c.place, "state")
    health = said["state"]["health"] if said is not None else {}
    parts: list[tuple[str, Any]] = [("scanner", config.scanner), ("keypad", config.keypad),
                                    *(("display" if n == 1 else f"display:{n}", one) for n, one in enumerate(config.displays, 1)),
                                    ("printer", config.printer), ("sound", config.sound)]
    parts += [("channel:card", one) for one in config.channels if one.name == "card"]
    rows = []
    for part, about in parts:
        path = f"{about.host}:{about.port}" if about.kind == "tcp" else getattr(about, "path", "")
        rows.append((part, about.kind, health.get(part) or _node(c, about.kind, path, said is not None), path))
    head = (c.t("设备", "part"), c.t("接法", "kind"), c.t("怎样", "how it is"), c.t("在哪里", "where"))
    yield from table([head, *rows], (13, 8, 22))


def doctor(c: Call) -> Iterator[str]:
    from device.doctor.tool import main

    code, lines = printed(main, ["--config", c.place.path, *([] if c.args else ["--offline"])])
    yield from lines
    if code:
        raise Failed("WRONG", c.t("有毛病，见上", "something is wrong: see above"))


def journal_verify(c: Call) -> Iterator[str]:
    if alive(c.place):
        said = told(c.place, "journal verify", timeout_s=120.0)
        if said is None:
            raise Failed("DAEMON", c.t("守护进程没有回答", "the daemon does not answer"))
        found = said["answer"]
        yield from found.get("defects", [])
        count, head = found["records"], found.get("head", "")
        yield c.t(f"{count} 条记录，头 {head}", f"{count} records, head {head}")
        if not found["whole"]:
            raise Failed("CHAIN", c.t("记录链不完整", "the chain is not whole"))
        return
    yield from _verified(c)


def timeline(c: Call) -> Iterator[str]:
    from device.timeline import main

    if not c.place.journal.exists():
        raise Failed("JOURNAL", c.t("没有日志账", "there is no journal"))
    code, lines = printed(main, ["--config", c.place.path, "--lang", c.lang, c.args])
    yield from lines
    if code:
        raise Failed("UNKNOWN" if code == 1 else "JOURNAL", c.t("查不到", "nothing was found"))


def state_of(c: Call) -> dict[str, Any]:
    """The daemon's state, or what a dead one's journal says.  Failed when neither can be had."""
    said = told(c.place, "state")
    return said["state"] if said is not None else _left(c)


# Helpers -------------------------------------------------------------------------------------------------------------

def _stated(c: Call, state: dict[str, Any]) -> Iterator[str]:
    health = state.get("health") or {}
    rows = [(c.t("阶段", "phase"), str(state.get("phase", "?"))),
            (c.t("健康", "health"), ", ".join(f"{part} {word}" for part, word in health.items()) or c.t("都好", "all well")),
            (c.t("待上传", "records to send"), f"{state.get('unacked', '?')} {_age(state.get('oldest_unacked_s'))}".strip()),
            (c.t("未决付款", "undecided payments"), str(len(state.get("parked", [])))),
            (c.t("挂单", "held baskets"), str(len(state.get("held", []))))]
    if state.get("notice"):
        rows.append((c.t("屏上的话", "on the screen"), str(state["notice"])))
    if state.get("config"):
        rows.append((c.t("推送的配置", "pushed configuration"), _few(state["config"])))
    if state.get("update"):
        rows.append((c.t("软件更新", "update"), _few(state["update"])))
    yield from table([(c.t("收银机", "box"), f"{c.place.box}, tillbox {c.place.software}"), *rows], (21,))


def _left(c: Call) -> dict[str, Any]:
    """The state as the journal alone tells it; Failed when it cannot be read."""
    from device.doctor.look import Look
    from device.keys.store import KeyStore
    from device.txn.desk import Desk
    from device.txn.show import state

    if c.place.config is None:
        raise Failed("CONFIG", c.t("box.toml 不能用，doctor 说明原因", "box.toml is refused; doctor says why"))
    if not c.place.journal.exists():
        raise Failed("JOURNAL", c.t("还没有日志账：这台收银机没卖过东西", "there is no journal: this box has not sold yet"))
    look = Look(c.place.path, c.place.config, KeyStore(c.place.state_dir / "keys", ()), False, None)
    books = look.books
    if books is None:
        raise Failed("JOURNAL", c.t(f"日志账读不出：{look.told}", f"the journal cannot be read: {look.told}"))
    return {**state(books, Desk(), 0), "unacked": _unacked(c), "health": {}}


def _unacked(c: Call) -> int | str:
    from device.errors import Outside
    from device.store_forward.tools import opened

    try:
        with tempfile.TemporaryDirectory(prefix="tillbox-") as folder:
            db = opened(readable(c.place, Path(folder)))
            try:
                last = next(iter(db["journal"].rows_where(order_by="n desc", limit=1)), {"mark": 0})["mark"]
                return int(last - next(iter(db["cursor"].rows))["upto"])
            finally:
                db.conn.close()
    except (Outside, OSError):
        return "?"


def _verified(c: Call) -> Iterator[str]:
    """The records of a dead box's journal, checked by `tillbox verify` under the box's own key."""
    import json
    import sqlite3

    from device.drivers.registry import signer_of
    from device.store_forward.token import TokenError
    from device.store_forward.tools import exported, opened
    from device.store_forward.verify import main

    if c.place.config is None:
        raise Failed("CONFIG", c.t("box.toml 不能用", "box.toml is refused"))
    if not c.place.journal.exists():
        raise Failed("JOURNAL", c.t("没有日志账", "there is no journal"))
    with tempfile.TemporaryDirectory(prefix="tillbox-") as folder:
        chain, keys = Path(folder) / "chain", Path(folder) / "keys"
        try:
            db = opened(readable(c.place, Path(folder)))
            try:
                with chain.open("w") as file:            # a year of records is more than this process may hold
                    file.writelines(f"{token}\n" for token in exported(db))
            finally:
                db.conn.close()
        except (OSError, sqlite3.Error, TokenError) as why:
            raise Failed("JOURNAL", str(why)) from None
        if not chain.stat().st_size:
            yield c.t("还没有记录", "there is no record yet")
            return
        keys.write_text(json.dumps({"keys": [signer_of(c.place.config, make=False).jwk]}))
        code, lines = printed(main, [str(chain), "--keys", str(keys)])
    yield from lines[-40:]
    if code:
        raise Failed("CHAIN", c.t("记录链不完整", "the chain is not whole"))


def _node(c: Call, kind: str, path: str, running: bool) -> str:
    if kind == "none":
        return c.t("没有", "none")
    if running:
        return c.t("好", "ok")
    if kind in ("tcp", "aplay") or (kind == "file" and not path.startswith("/dev/")):
        return c.t("未试", "not tried")
    return c.t("在", "there") if os.path.exists(path) else c.t("不在", "not there")


def _age(seconds: Any) -> str:
    if not isinstance(seconds, int | float) or not seconds:
        return ""
    return f"{int(seconds)} s" if seconds < 120 else f"{int(seconds) // 60} min" if seconds < 7200 else f"{int(seconds) // 3600} h"


def _few(one: dict[str, Any]) -> str:
    """What is said of one thing in a line: names and values, without what is empty."""
    return " ".join(f"{key} {value}" for key, value in one.items() if isinstance(value, str | int) and value != "")[:200]
