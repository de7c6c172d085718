"""The pure half of the scanner: layouts, endings, pauses, and what spoils a scan."""

from __future__ import annotations

import random

import pytest

from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, Event, EventBytes, event_bytes, typed
from device.drivers.input.scanner_keys import (
    GS,
    KEY_GAP_MS_MAX,
    LEFTALT,
    LEFTSHIFT,
    QUIET_MS,
    STALE_MS,
    SYMBOL_LEN_MAX,
    US_KEYS,
    ByteDecoder,
    KeyDecoder,
    KeyEvents,
    Read,
    key_codes,
    symbol_fault,
)

TEA = "4891028705949"
COLA = "6901939621608"


def events_of(text: str, at_ms: int = 1000, every_ms: int = 8) -> list[Event]:
    events = []
    for code, shift, ctrl in key_codes(text):
        held = [42] * shift + [29] * ctrl
        events += [Event(EV_KEY, key, 1, at_ms) for key in held]
        events += typed(code, at_ms)
        events += [Event(EV_KEY, key, 0, at_ms) for key in held]
        at_ms += every_ms
    return events


def reads_of(events: list[Event], decoder: KeyEvents | None = None) -> list[Read]:
    decoder = decoder or KeyEvents()
    return [read for event in events if (read := decoder.feed(event))]


def fed(text: str, decoder: KeyDecoder, at_ms: int = 0, every_ms: int = 8) -> list[Read]:
    return [read for n, key in enumerate(text) if (read := decoder.feed(key, at_ms + n * every_ms))]


@pytest.mark.parametrize("end", ["\r", "\n", "\t", "\r\n"])
@pytest.mark.parametrize("prefix", ["", "\n"])
def test_every_ending_and_an_enter_in_front_give_one_symbol(end: str, prefix: str) -> None:
    assert reads_of(events_of(prefix + TEA + end)) == [Read(TEA)]
    assert ByteDecoder().feed((prefix + TEA + end).encode(), 0) == [Read(TEA)]


def test_keypad_codes_and_keypad_enter() -> None:
    pad = {"0": 82, "1": 79, "2": 80, "3": 81, "4": 75, "5": 76, "6": 77, "7": 71, "8": 72, "9": 73}
    events = [event for n, digit in enumerate(TEA) for event in typed(pad[digit], n)] + typed(96, 20)
    assert reads_of(events) == [Read(TEA)]


def test_every_printable_character_survives_shift() -> None:
    for start in (33, 80):
        text = "".join(map(chr, range(start, min(start + 47, 127))))
        assert reads_of(events_of(text + "\r")) == [Read(text)]


def test_codes_agree_with_the_kernels_names() -> None:
    evdev = pytest.importorskip("evdev")
    for code, (plain, _) in US_KEYS.items():
        names = evdev.ecodes.KEY[code]
        if plain.isalnum():
            assert {f"KEY_{plain.upper()}", f"KEY_KP{plain}"} & set([names] if isinstance(names, str) else names)


def test_autorepeat_caps_lock_and_releases_mean_nothing() -> None:
    events = [*typed(58, 0), *events_of(TEA)]
    noisy = [extra for event in events for extra in (event, event._replace(value=2) if event.value else event)]
    assert reads_of([*noisy, *events_of("\r", 1110)]) == [Read(TEA)]


def test_group_separator_by_ctrl_bracket_and_by_alt_code() -> None:
    gs1 = "0106901939621608" + "10A" + GS + "17261231"
    assert reads_of(events_of(gs1 + "\r")) == [Read(gs1)]
    for digits in ((82, 80, 73), (80, 73)):                 # Alt+029, Alt+29
        alt = [Event(EV_KEY, LEFTALT, 1, 1008), *[e for d in digits for e in typed(d, 1008)], Event(EV_KEY, LEFTALT, 0, 1008)]
        assert reads_of([*events_of("A"), *alt, *events_of("B\r", 1016)]) == [Read(f"A{GS}B")]


def test_a_kernel_overrun_breaks_this_symbol_and_not_the_next() -> None:
    lost = [Event(EV_SYN, 3, 0, 1050), *typed(2, 1050)[:1], Event(EV_SYN, 0, 0, 1050)]
    reads = reads_of([*events_of(TEA[:6]), *lost, *events_of(TEA[6:] + "\r", 1058), *events_of(COLA + "\r", 1200)])
    assert [bool(read.why) for read in reads] == [True, False]
    assert reads[1] == Read(COLA)


def test_keys_lost_before_the_first_that_came_spoil_what_comes() -> None:
    """After a long silence, too: the rest of a code can be another product's."""
    for lost in ([Event(EV_SYN, 3, 0, 90_000), Event(EV_SYN, 0, 0, 90_000)], typed(240, 90_000)):
        reads = reads_of([*events_of(COLA + "\r"), *lost, *events_of(TEA[1:] + "\r", 90_008), *events_of(TEA + "\r", 91_000)])
        assert [read.symbol for read in reads] == [COLA, "", TEA]


def test_an_enter_lost_in_an_overrun_does_not_make_a_symbol_of_the_second_half() -> None:
    lost = [Event(EV_SYN, 3, 0, 1050), Event(EV_KEY, 28, 1, 1050), Event(EV_SYN, 0, 0, 1050)]
    reads = reads_of([*events_of(TEA[:6]), *lost, *events_of(TEA[6:] + "\r", 1058)])
    assert [read.symbol for read in reads] == [""]


def test_shift_held_over_an_overrun_does_not_shift_what_follows() -> None:
    held = [Event(EV_KEY, LEFTSHIFT, 1, 0), Event(EV_SYN, 3, 0, 0), Event(EV_SYN, 0, 0, 0)]
    reads = reads_of([*held, *events_of("\r", 8), *events_of(TEA + "\r", 20)])
    assert reads[-1] == Read(TEA)


def test_a_key_no_table_knows_spoils_the_scan() -> None:
    reads = reads_of([*events_of(TEA[:6]), *typed(240, 1050), *events_of(TEA[6:] + "\r", 1056)])
    assert len(reads) == 1 and "240" in reads[0].why


def test_two_scans_within_100_ms_stay_two() -> None:
    assert reads_of(events_of(TEA + "\r" + COLA + "\r", every_ms=3)) == [Read(TEA), Read(COLA)]
    assert ByteDecoder().feed(f"{TEA}\r{COLA}\r".encode(), 0) == [Read(TEA), Read(COLA)]


def test_a_pause_inside_breaks_the_whole_symbol() -> None:
    decoder = KeyDecoder()
    assert fed(TEA[:6], decoder) == []
    reads = fed(TEA[6:] + "\n", decoder, 5 * 8 + KEY_GAP_MS_MAX + 1)
    assert len(reads) == 1 and reads[0].why and decoder.dropped == 1
    decoder = KeyDecoder()
    assert fed(TEA[:6], decoder) + fed(TEA[6:] + "\n", decoder, 5 * 8 + KEY_GAP_MS_MAX) == [Read(TEA)]


def test_after_a_long_pause_half_a_scan_is_told_and_the_next_is_whole() -> None:
    decoder = KeyDecoder()
    fed(TEA[:6], decoder)
    reads = fed(COLA + "\n", decoder, STALE_MS + 100)
    assert [bool(read.why) for read in reads] == [True, False] and reads[1] == Read(COLA)


def test_silence_tells_half_a_scan_once() -> None:
    decoder = KeyDecoder()
    fed(TEA[:6], decoder)
    assert decoder.quiet_ms == STALE_MS
    read = decoder.quiet()
    assert read and read.why
    assert decoder.quiet() is None and decoder.quiet_ms is None


def test_a_scanner_without_suffix_ends_by_silence() -> None:
    decoder = KeyDecoder(suffix=False)
    assert fed(TEA, decoder) == [] and decoder.quiet_ms == QUIET_MS
    assert fed(COLA, decoder, 12 * 8 + QUIET_MS + 1) == [Read(TEA)]
    assert decoder.quiet() == Read(COLA)


def test_a_symbol_too_long_is_dropped_whole_and_told_once() -> None:
    decoder = KeyDecoder()
    assert fed("7" * SYMBOL_LEN_MAX + "\n", decoder) == [Read("7" * SYMBOL_LEN_MAX)]
    for length in (SYMBOL_LEN_MAX + 1, 5000):
        reads = fed("7" * length + "\n", decoder, 10_000 * length)
        assert [bool(read.why) for read in reads] == [True]
    assert fed(TEA + "\n", decoder, 10**9) == [Read(TEA)]


def test_aim_prefix_is_taken_off() -> None:
    decoder = KeyDecoder()
    assert fed("]E0" + TEA + "\r", decoder) == [Read(TEA, aim="]E0")]
    assert fed("]Q3" + "7" * SYMBOL_LEN_MAX + "\r", decoder, 5000) == [Read("7" * SYMBOL_LEN_MAX, aim="]Q3")]


def test_every_control_and_high_character_at_each_place_spoils_and_says_why() -> None:
    for code in (*range(32), *range(127, 256)):
        char = chr(code)
        for text in (char + TEA, TEA[:6] + char + TEA[6:], TEA + char):
            fault = symbol_fault(text)
            assert (fault == "") == (char == GS), repr(char)
    assert symbol_fault("") and symbol_fault("   ") and symbol_fault(GS)
    assert symbol_fault("7" * SYMBOL_LEN_MAX) == ""


def test_rubbish_never_raises_and_a_whole_scan_still_comes_through() -> None:
    dice = random.Random(7)
    for _ in range(200):
        decoder, at_ms = KeyEvents(), 0
        for _ in range(60):
            at_ms += dice.choice((0, 5, 90, 2000))
            decoder.feed((dice.choice((0, 1, 4, 17)), dice.randrange(0, 260), dice.choice((0, 1, 2)), at_ms))
        for code in (29, 97, 42, 54, 56, 100):
            decoder.feed((1, code, 0, at_ms))
        decoder.feed((0, 0, 0, at_ms))
        reads = reads_of(events_of("\r" + TEA + "\r", at_ms + 5000), decoder)
        assert reads[-1] == Read(TEA)


def test_events_torn_at_every_byte_arrive_whole() -> None:
    events = events_of(TEA[:3])
    data = b"".join(map(event_bytes, events))
    torn = EventBytes()
    assert [event for n in range(len(data)) for event in torn.feed(data[n : n + 1])] == events
