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
                "config": said.get("config"), "update": said.get("update"), **figures}

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
    until_s, after, chain, tally = loop.time() + VERIFY_S_MAX, 0, None, Tally()
    while some := tokens(after, VERIFY_SLICE):
        if chain is None:
            first = parse(some[0][1]).payload
            start = None if first.seq == 1 else (first.seq - 1, first.prev)
            chain = Chain({jwk["kid"]: public_verifier(dict(jwk))}, start)
        await asyncio.to_thread(tally.walk, chain, [token for _, token in some])
        after = some[-1][0]
        if loop.time() > until_s:
            return _said(chain, tally, finished=False)
    return _said(chain, tally, finished=True) if chain is not None else {"whole": True, "finished": True, "records": 0}


class Tally:
    """What is wrong along a chain: how much of it, and the first of it in words."""

    def __init__(self) -> None:
        self.wrong, self.unproven = 0, 0
        self.first: list[Defect] = []

    def walk(self, chain: Chain, some: list[str]) -> None:
        for token in some:
            for defect in chain.feed(token):
                # Records before a change of keys name one that is gone from this box: the links prove them, up to a signature
                # that holds.
                if defect.name == "UNKNOWN_KEY":
                    self.unproven += 1
                    continue
                self.wrong += 1
                if len(self.first) < DEFECTS_MAX:
                    self.first.append(defect)


def _said(chain: Chain, tally: Tally, *, finished: bool) -> dict[str, Any]:
    return {"whole": not tally.wrong and tally.unproven < chain.records, "finished": finished, "records": chain.records,
            "seq": chain.seq, "head": chain.head, "by_other_keys": tally.unproven, "found": tally.wrong,
            "defects": [f"{d.name} record {d.line}: {d.sentence}" for d in tally.first]}
