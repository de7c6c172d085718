"""Whatever a seed decides: when something goes wrong, what, and whom it strikes.

Knows names of places and faults.  Refuses to know what a fault does: who asks for one carries it out.
"""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Callable, Iterable

EPOCH = datetime.datetime(2026, 9, 1, 8, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=8)))

# How much likelier than a query some call is to suffer: customers' queries are many, what begins or ends a payment is few.
RISKY = {"query": 1.0, "watch": 0.2, "pay": 5.0, "charge": 5.0, "micropay": 5.0, "codepay": 5.0, "cancel": 9.0,
         "bill": 3.0, "bill_file": 12.0}
RISKY_ELSE = 3.0
BOXES_STEP = 7
STORM = {"channel": .08, "line_dead": .003, "late_request": .01, "told_twice": .08, "deaf": .95, "paid_after_close": .7,
         "lost_news": .1, "doubled_news": .1, "bank_offline": .06, "bank_mute": .1, "batch_closed": .06,
         "other_amount": .08, "kill": .02, "kill_paid": .15, "kill_asking": .004, "kill_charging": .08,
         "paper": .01, "paper_out": .01, "link": .1}
CI = STORM | {"kill": .007, "kill_asking": .001}      # a box that lives for days, and is not always just starting
DEATHS = {name: rate for name, rate in STORM.items() if name.startswith("kill")}
SIGNER = {"signer": .1, "signer_slow": .1, "kill": .004, "link": .1}
FLASH = DEATHS | {"flash": .5, "link": .1}           # a page of journal or second copy is spoilt while the power is away
RATES: dict[str, dict[str, float]] = {"none": {}, "flash": FLASH, "deaths": DEATHS, "storm": STORM, "ci": CI, "signer": SIGNER}


class Fate:
    """One seed's.  `rates` by fault, of each occasion; `channel` is any fault of a channel at one query.

    `quiet`: faults have stopped.  `fired` counts by (place, fault); `struck` the orders that were under way then.
    """

    def __init__(self, seed: int, rates: dict[str, float]) -> None:
        self.random, self._seed = random.Random(seed), seed
        self.rates, self.quiet = rates, False
        self.owed: set[tuple[str, str]] = set()      # (place, fault) that must happen soon: at the first or second chance
        self.fired: Counter[tuple[str, str]] = Counter()
        self.struck: dict[tuple[str, str], set[str]] = {}
        self._each: Counter[tuple[str, str, str]] = Counter()

    def strikes(self, place: str, fault: str, order_no: str = "") -> bool:
        """Whether `fault` happens now, at `place`."""
        chance = .5 if (place, fault) in self.owed else self.rates.get(fault, 0)
        if self.quiet or self.random.random() >= chance:
            return False
        self.note(place, fault, order_no)
        return True

    def choose(self, place: str, call: str, kinds: Iterable[str], order_no: str = "", rare: Iterable[str] = ()) -> str:
        """A fault of the channel `place` for one call, "" for none: of `kinds` the one that such a call has met least.

        Mostly one of `rare`, which few calls can meet, so that these happen as well.
        """
        kinds = tuple(kinds)
        owed = [kind for kind in kinds if (place, kind) in self.owed]
        if owed and not self.quiet and self.random.random() < .5:
            self.note(place, owed[0], order_no)
            return owed[0]
        rate = self.rates.get("channel", 0) * RISKY.get(call, RISKY_ELSE)
        if self.quiet or self.random.random() >= rate:
            return ""
        own = tuple(rare) if self.random.random() < .7 else ()
        each = {kind: self._each[place, call, kind] for kind in own or kinds}
        least = [kind for kind, times in each.items() if times == min(each.values())]
        # Not by chance: the next box begins with another kind, so that a few boxes meet them all.
        kind = least[(self._seed * BOXES_STEP + self._each[place, call, ""]) % len(least)]
        self._each[place, call, kind] += 1
        self._each[place, call, ""] += 1
        self.note(place, kind, order_no)
        return kind

    def known(self, place: str, faults: Iterable[str]) -> None:
        """Faults that can happen at `place`: they are told of, also where none did."""
        for fault in faults:
            self.fired[place, fault] += 0
            self.struck.setdefault((place, fault), set())

    def note(self, place: str, fault: str, order_no: str = "") -> None:
        self.fired[place, fault] += 1
        self.owed.discard((place, fault))
        orders = self.struck.setdefault((place, fault), set())
        if order_no:
            orders.add(order_no)


class WorldClock:
    """Time of the whole world, from the loop's seconds."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time

    def ms(self) -> int:
        return int(self._time() * 1000 + 1e-3)

    def unix_s(self) -> float:
        return EPOCH.timestamp() + self._time()

    def unix_ms(self) -> int:
        return int(EPOCH.timestamp()) * 1000 + self.ms()

    def date_time(self) -> datetime.datetime:
        return EPOCH + datetime.timedelta(milliseconds=self.ms())

    def wall(self) -> str:
        return self.date_time().isoformat(timespec="milliseconds")
