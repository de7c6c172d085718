"""What time it is, from clocks that may all be wrong: the system's, the monotonic one, the cloud's signed word, a channel's Date.

Pure: every reading is handed in.  The time is carried on by the monotonic clock, and the system's clock is a claim about it:
- one that agrees within AGREE_MS is believed, and so are small corrections;
- before anybody else has said the time in this boot, a jump of up to a day is followed, and undone when a proof says so; a
  larger one waits for a proof;
- after a proof a jump is not followed at all: what was proven and carried on is better than what somebody set.
A proof is a channel's Date over TLS, or the `at` of an acknowledgement that released something, so that it is no replay.  Only
the latter raises the floor, below which no time is ever told; the floor moves on with the monotonic clock.
"""

from __future__ import annotations

AGREE_MS = 300_000             # channels refuse what is further off
JUMP_MS = 86_400_000           # what no shop's clock is corrected by without somebody else saying so, too


class Wall:
    """The wall of one boot.  Times are Unix milliseconds; `mono_ms` and `system_ms` are what two clocks say this moment.

    `last_ms` is the latest that this box remembers, None for one that remembers nothing.
    """

    def __init__(self, mono_ms: int, system_ms: int, last_ms: int | None = None) -> None:
        believed = last_ms is None or 0 <= system_ms - last_ms <= JUMP_MS
        self._mono_ms = mono_ms
        self._anchor_ms = self._told_ms = system_ms if believed or last_ms is None else last_ms
        self._floor_ms = 0
        self.proven = False                          # somebody else has said the time in this boot
        self.doubts = not believed                   # the system's clock says something else than is told

    def now_ms(self, mono_ms: int, system_ms: int) -> int:
        """What time is told now."""
        self._carry(mono_ms)
        # Measured from the anchor, so that many small steps are no way around it.
        self.doubts = abs(system_ms - self._anchor_ms) > (AGREE_MS if self.proven else JUMP_MS)
        if not self.doubts:
            self._told_ms = max(system_ms, self._floor_ms)
        return self._told_ms

    def date(self, at_ms: int, mono_ms: int, system_ms: int) -> None:
        """A channel's Date came over TLS: `at_ms`, whole seconds.  It chooses between our clocks; where none fits and nothing
        better was proven, it is believed itself."""
        self._carry(mono_ms)
        fits = self._fitting(at_ms, system_ms)
        if fits is not None or not self.proven:
            self._prove(at_ms if fits is None else fits)

    def acknowledged(self, at_ms: int, mono_ms: int, system_ms: int) -> None:
        """The cloud signed `at_ms` after it had what we sent: it is at least that time now, and hardly a day more."""
        self._carry(mono_ms)
        self._floor_ms = max(self._floor_ms, at_ms)
        fits = self._fitting(at_ms, system_ms)
        far_ahead = not self.proven and self._told_ms - at_ms > JUMP_MS
        if fits is not None or far_ahead or self._told_ms < at_ms:
            self._prove(at_ms if fits is None else fits)

    def _carry(self, mono_ms: int) -> None:
        gone, self._mono_ms = max(0, mono_ms - self._mono_ms), max(mono_ms, self._mono_ms)
        self._told_ms += gone
        self._anchor_ms += gone
        self._floor_ms += gone if self._floor_ms else 0

    def _fitting(self, at_ms: int, system_ms: int) -> int | None:
        return next((ms for ms in (self._told_ms, system_ms, self._anchor_ms) if abs(ms - at_ms) <= AGREE_MS), None)

    def _prove(self, at_ms: int) -> None:
        self.proven = True
        self._anchor_ms = self._told_ms = max(at_ms, self._floor_ms)
