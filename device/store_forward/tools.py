"""`tillbox journal`: looks into a journal file.  Reads only, and while no daemon holds the file; knows tokens, not facts."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from device.errors import Outside
from device.store_forward.schema import SCHEMA_VERSION, version_of
from device.store_forward.token import TokenError, parse, tokens_found

WHAT = ("list", "show", "export", "stats", "schema")
HEAD_CHARS = 100


def main(argv: list[str]) -> int:
    """`tillbox journal FILE [list|show N|export|stats|schema] [--from N] [--json]`.

    Exit status 0; 1 when the file cannot be read; 2 for arguments that do not serve.
    """
    try:
        asked = _arguments(argv)
    except ValueError as error:
        print(f"tillbox journal: {error}", file=sys.stderr)
        return 2
    try:
        db = opened(asked.file)
        try:
            for line in _answer(db, asked):
                print(line)
        finally:
            db.conn.close()
    except Outside as error:
        print(f"tillbox journal: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return 0


def opened(path: str | Path) -> Any:
    """The journal as a read-only sqlite_utils.Database.  Outside, in one sentence, when it is none, held, or newer than we know."""
    import sqlite_utils

    if not Path(path).is_file():
        raise _refused(path, "is not there", "name the journal's file")
    conn = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=0)
    try:
        found = version_of(conn)
    except sqlite3.Error as error:
        conn.close()
        if "locked" in str(error):
            raise _refused(path, "is held by the running daemon", "stop it first") from None
        raise _refused(path, f"cannot be read: {error}", "see docs/recovery.md") from None
    if not 1 <= found <= SCHEMA_VERSION:
        conn.close()
        raise _refused(path, f"has schema {found}, this software knows 1 to {SCHEMA_VERSION}", "use the software that wrote it")
    return sqlite_utils.Database(conn)


def exported(db: Any, first: int = 1) -> Iterator[str]:
    """Every record token from row `first` on, in chain order, once: rows that say an older record again give nothing."""
    jid, seq = "", 0
    for row in db["journal"].rows_where("n >= ?", [first], order_by="n"):
        for found, token in tokens_found(bytes(row["facts"])):
            its_jid = parse(token).payload.jid
            if its_jid != jid or found > seq:
                jid, seq = its_jid, found
                yield token


def _answer(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    try:
        yield from {"list": _listed, "show": _shown, "export": _exported, "stats": _stats, "schema": _schema}[asked.what](db, asked)
    except sqlite3.Error as error:
        raise _refused(asked.file, f"cannot be read: {error}", "see docs/recovery.md") from None
    except TokenError as error:
        raise _refused(asked.file, f"holds a token that cannot be read: {error}", "see docs/recovery.md") from None


def _listed(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    for row in db["journal"].rows_where("n >= ?", [asked.first], order_by="n"):
        text = _text(bytes(row["facts"]))
        if asked.json:
            yield json.dumps({"n": row["n"], "mark": row["mark"], "bytes": len(row["facts"]), "facts": text}, ensure_ascii=False)
        else:
            yield f"{row['n']:>8} {row['mark']:>8} {len(row['facts']):>7} B  {text[:HEAD_CHARS]}"


def _shown(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    row = next(iter(db["journal"].rows_where("n = ?", [asked.n])), None)
    if row is None:
        raise _refused(asked.file, f"has no row {asked.n}", "list shows which there are")
    text = _text(bytes(row["facts"]))
    try:
        tree = json.loads(text)
    except ValueError:
        yield text
        return
    yield json.dumps(tree, ensure_ascii=False, indent=None if asked.json else 2)


def _exported(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    yield from exported(db, asked.first)


def _stats(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    last = next(iter(db["journal"].rows_where(order_by="n desc", limit=1)), {"n": 0, "mark": 0})
    cursor = next(iter(db["cursor"].rows))
    meta = {row["key"]: row["value"] for row in db["meta"].rows}
    pages, page_bytes = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    said = {"box": meta["box"], "mode": meta["mode"], "rows": db["journal"].count, "last": last["n"], "records": last["mark"],
            "acked": cursor["upto"], "unacked": last["mark"] - cursor["upto"], "fold_from": int(meta["fold_from"]),
            "bytes": pages * page_bytes, "check": db.execute("PRAGMA quick_check(1)").fetchone()[0]}
    yield from [json.dumps(said)] if asked.json else (f"{key:>10}  {value}" for key, value in said.items())


def _schema(db: Any, asked: argparse.Namespace) -> Iterator[str]:
    if asked.json:
        yield json.dumps({"version": version_of(db), "schema": db.schema})
    else:
        yield f"-- version {version_of(db)} of {SCHEMA_VERSION}"
        yield db.schema


def _text(facts: bytes) -> str:
    try:
        return facts.decode("utf-8")
    except UnicodeDecodeError:
        return facts.hex()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="tillbox journal", description="Look into a journal file.")
    parser.add_argument("file")
    parser.add_argument("what", nargs="?", choices=WHAT, default="list")
    parser.add_argument("n", nargs="?", type=int, help="number of the row to show")
    parser.add_argument("--from", dest="first", type=int, default=1, metavar="N", help="first row")
    parser.add_argument("--json", action="store_true", help="one object a line")
    asked = parser.parse_args(argv)
    if (asked.what == "show") != (asked.n is not None):
        raise ValueError("show takes the number of a row, and nothing else does")
    return asked


def _refused(path: str | Path, why: str, hint: str) -> Outside:
    return Outside(f"The journal {path} {why}.", which="journal", hint=hint, again=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
