"""What the box answers to a question from afar: state, doctor, log lines, its own chain walked over.  Changes nothing.

Knows where the answers stand; refuses to know who asks and whether they may.  Each answer is bounded in size and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from device import __version__
from device.commands.log_ring import LogRing
from device.store_forward.es256 import public_verifier
from device.store_forward.token import parse

if TYPE_CHECKING:
    from device.store_forward.verify import Chain, Defect

LINES = 100
FINDINGS_MAX = 60
DEFECTS_MAX = 20
VERIFY_SLICE = 200                       # records walked over at a time, off the loop: a sale goes on between two
VERIFY_S_MAX = 90.0

Inquiry = Callable[[str], Awaitable[Any]]


def inquiries(path: str, *, state: Callable[[], dict[str, Any]], metrics: Callable[[], dict[str, Any]],
              ring: LogRing, tokens: Callable[[int, int], list[tuple[int, str]]],
              jwk: Callable[[], Mapping[str, str]]) -> dict[str, Inquiry]:
    """The questions by verb.  `path` of the configuration file, "" for none; `jwk` the record key's public half."""

    async def status(_: str) -> dict[str, Any]:
        said, figures = state(), metrics()
        return {"software": __version__, "phase": said["phase"], "health": said["health"], "notice": said["notice"],
                "parked": len(said["parked"]), "held": len(said["held"]), "lines": len(said["lines"]),
                "config": said.get("config"), **figures}

    async def doctor(_: str) -> dict[str, Any]:
        found = await asyncio.to_thread(_findings, path)
        return {"wrong": sum(bool(f["action"]) for f in found), "findings": found[:FINDINGS_MAX]}

    async def logs(args: str) -> dict[str, Any]:
        return {"lines": ring.last(int(args or LINES))}

    async def verify(_: str) -> dict[str, Any]:
        return await _walked(tokens, jwk())

    return {"status": status, "doctor": doctor, "logs": logs, "journal verify": verify}


def _findings(path: str) -> list[dict[str, str]]:
    from device.doctor.tool import looked  # which imports the daemon

    return [msgspec.to_builtins(finding) for finding in looked(path)]


async def _walked(tokens: Callable[[int, int], list[tuple[int, str]]], jwk: Mapping[str, str]) -> dict[str, Any]:
    """The chain from the oldest record that is kept to the newest; `finished` says whether there was time for all."""
    from device.store_forward.verify import Chain  # argparse and json with it: not for a start

    loop = asyncio.get_running_loop()
    until_s, after, chain = loop.time() + VERIFY_S_MAX, 0, None
    defects: list[Defect] = []
    while some := tokens(after, VERIFY_SLICE):
        if chain is None:
            first = parse(some[0][1]).payload
            start = None if first.seq == 1 else (first.seq - 1, first.prev)
            chain = Chain({jwk["kid"]: public_verifier(dict(jwk))}, start)
        defects += await asyncio.to_thread(_slice, chain, [token for _, token in some])
        after = some[-1][0]
        if loop.time() > until_s:
            return _said(chain, defects, finished=False)
    return _said(chain, defects, finished=True) if chain is not None else {"whole": True, "finished": True, "records": 0}


def _slice(chain: Chain, some: list[str]) -> list[Defect]:
    return [defect for token in some for defect in chain.feed(token)]


def _said(chain: Chain, defects: list[Defect], *, finished: bool) -> dict[str, Any]:
    # Records before a change of keys name one that is gone from this box: the links prove them, up to a signature that holds.
    wrong = [d for d in defects if d.name != "UNKNOWN_KEY"]
    unproven = len(defects) - len(wrong)
    return {"whole": not wrong and unproven < chain.records, "finished": finished, "records": chain.records, "seq": chain.seq,
            "head": chain.head, "by_other_keys": unproven, "found": len(wrong),
            "defects": [f"{d.name} record {d.line}: {d.sentence}" for d in wrong[:DEFECTS_MAX]]}
