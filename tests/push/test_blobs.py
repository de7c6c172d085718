"""Price books, pictures and rule tables on their way: in any order, over cuts and boots, by a delta, and never half."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from device.mqtt import config_wire as wire
from device.mqtt.delta_wire import delta_made
from device.push.blobs import ROOM_MIN_BYTES, Blobs
from tests.pushed_box import Box, blob_of, doc, price_book, shuffled

BOOK = price_book(3_000)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def want(box: Box) -> dict[str, tuple[tuple[int, int], ...]]:
    box.pusher.step()
    return box.report.want


def test_a_price_book_arrives_in_any_order_and_is_used_between_two_customers(box: Box):
    blob = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": blob}))
    chunks = wire.chunks_of(len(BOOK))
    assert want(box) == {blob.sha256: ((0, chunks - 1),)} and box.reports[-1].want == box.report.want
    order = shuffled(1, chunks)
    box.feed(blob.sha256, BOOK, order[:-1])
    box.wait(30)
    assert box.report.state == "staged" and box.report.want == {blob.sha256: ((order[-1], order[-1]),)}
    box.busy = True
    box.feed(blob.sha256, BOOK, order[-1:])
    box.wait(30)
    assert not box.taken
    box.busy = False
    box.wait(3)
    assert box.report.state == "active" and box.report.want == {} and box.starts == 1
    assert Path(box.config.prices_file).read_bytes() == BOOK
    box.start()
    assert Path(box.config.prices_file).read_bytes() == BOOK


def test_chunks_that_are_here_are_not_asked_for_again_after_a_boot(box: Box):
    blob = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": blob}))
    box.feed(blob.sha256, BOOK, [0, 2])
    box.start()
    assert want(box) == {blob.sha256: ((1, 1), (3, wire.chunks_of(len(BOOK)) - 1))}
    box.feed(blob.sha256, BOOK, list(range(1, wire.chunks_of(len(BOOK)))))
    box.wait(3)
    assert box.report.state == "active"


def test_missing_chunks_are_asked_for_again_when_none_comes(box: Box):
    box.push(doc(1, {}, blobs={"prices": blob_of(BOOK)}))
    want(box)
    before = len(box.reports)
    box.wait(25)
    assert len(box.reports) == before + 2


def test_a_damaged_chunk_spoils_the_blob_and_all_of_it_is_asked_for_again(box: Box):
    blob = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": blob}))
    want(box)
    box.feed(blob.sha256, BOOK[:5] + b"X" + BOOK[6:])
    box.wait(3)
    assert box.report.state == "staged" and box.report.want == {blob.sha256: ((0, wire.chunks_of(len(BOOK)) - 1),)}
    box.feed(blob.sha256, BOOK)
    box.wait(3)
    assert box.report.state == "active"


def test_nobody_fills_the_card_with_what_no_document_names(box: Box):
    stranger = blob_of(BOOK)
    box.feed(stranger.sha256, BOOK)
    box.push(doc(1, {}, blobs={"prices": blob_of(price_book(10))}))
    want(box)
    box.feed(stranger.sha256, BOOK)
    name = next(iter(box.report.want))
    for n, data in ((0, b"short"), (0, b"x" * wire.CHUNK_BYTES), (1, b""), (999_999_999, b"x")):
        box.pusher.chunk(name, n, data)
    assert not (box.pusher.blobs.folder.exists() and list(box.pusher.blobs.folder.iterdir()))
    assert box.pusher.blobs.unasked > 4


def test_without_room_on_the_card_the_document_is_refused(box: Box, monkeypatch):
    monkeypatch.setattr(Blobs, "_room", lambda self: ROOM_MIN_BYTES)
    box.push(doc(1, {}, blobs={"prices": blob_of(BOOK)}))
    box.wait(3)
    assert box.report.state == "refused" and "no room" in box.report.why


def test_a_price_book_with_a_price_of_nothing_is_refused_with_every_row(box: Box):
    bad = price_book(50).replace(b",500,", b",0,").replace(b",510,", b",1.5,")
    box.push(doc(1, {}, blobs={"prices": blob_of(bad)}))
    want(box)
    box.feed(blob_of(bad).sha256, bad)
    box.wait(3)
    assert box.report.state == "refused"
    assert any("price_fen 0 is not between" in reason for reason in box.report.reasons)
    assert any("'1.5'" in reason for reason in box.report.reasons)
    assert not box.taken and box.starts == 1


def test_a_changed_price_travels_as_a_delta_and_old_books_leave_the_card(box: Box):
    first = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": first}))
    want(box)
    box.feed(first.sha256, BOOK)
    box.wait(3)
    new = price_book(3_000, frozenset({7, 1_500}))
    delta = delta_made(BOOK, new)
    assert len(delta) < 300
    small = blob_of(delta)
    blob = blob_of(new, wire.Delta(first.sha256, small.sha256, small.bytes))
    box.push(doc(2, {}, blobs={"prices": blob}))
    assert want(box) == {small.sha256: ((0, 0),)}
    box.feed(small.sha256, delta)
    box.wait(3)
    assert box.report.state == "active" and Path(box.config.prices_file).read_bytes() == new
    box.push(doc(3, {"shop_en": "No Book"}))
    box.wait(3)
    kept = {path.name for path in box.pusher.blobs.folder.iterdir()}
    assert kept == {blob.sha256}                   # that of the one before; the first and the delta are gone


def test_a_delta_that_leads_elsewhere_is_left_and_the_whole_asked_for(box: Box):
    first = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": first}))
    want(box)
    box.feed(first.sha256, BOOK)
    box.wait(3)
    new, other = price_book(3_000, frozenset({7})), price_book(3_000, frozenset({8}))
    delta = delta_made(BOOK, other)
    small = blob_of(delta)
    blob = blob_of(new, wire.Delta(first.sha256, small.sha256, small.bytes))
    box.push(doc(2, {}, blobs={"prices": blob}))
    want(box)
    box.feed(small.sha256, delta)
    box.wait(2)
    assert set(box.report.want) == {blob.sha256} and box.report.state == "staged"
    box.feed(blob.sha256, new)
    box.wait(3)
    assert box.report.state == "active" and Path(box.config.prices_file).read_bytes() == new


def test_a_pushed_rule_table_must_be_signed_by_the_fleet_too(box: Box):
    import json

    from device import rules
    from tests.pushed_box import KEY, Key

    (box.state / "rules.jwk").write_text(json.dumps(KEY.jwk))
    table = (Path(rules.__file__).with_name("rules.json")).read_bytes()
    for version, key, state in ((1, Key(), "refused"), (2, KEY, "active")):
        token = rules.sealed(table, key.kid, key.sign)
        box.push(doc(version, {}, blobs={"rules": blob_of(token)}))
        want(box)
        box.feed(blob_of(token).sha256, token)
        box.wait(3)
        assert box.report.state == state, box.report
    assert Path(box.config.rules_file).read_bytes() == token and box.starts == 2


def png_of(width: int, height: int) -> bytes:
    """A PNG as far as its head."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes(30)


def test_a_picture_is_a_picture(box: Box):
    for version, data, state in ((1, b"#!/bin/sh\n", "refused"), (2, b"\x89PNG\r\n\x1a\n" + bytes(50), "refused"),
                                 (3, png_of(30_000, 30_000), "refused"), (4, png_of(800, 480), "active")):
        box.push(doc(version, {}, blobs={"picture/logo": blob_of(data)}))
        want(box)
        box.feed(blob_of(data).sha256, data)
        box.wait(3)
        assert box.report.state == state
    path = str(box.pusher.blobs.path(blob_of(data).sha256))
    assert box.config.pictures == (path,) and box.layers.why("pictures") == "box"      # taken with no restart
    assert hashlib.sha256(box.pusher.blobs.path(blob_of(data).sha256).read_bytes()).hexdigest() == blob_of(data).sha256


def test_a_price_that_rots_on_the_card_is_not_taken_and_the_book_comes_again(box: Box):
    blob = blob_of(BOOK)
    box.push(doc(1, {}, blobs={"prices": blob}))
    want(box)
    box.feed(blob.sha256, BOOK)
    box.wait(3)
    path = Path(box.config.prices_file)
    path.write_bytes(BOOK.replace(b",596,", b",196,", 1))
    box.start()
    assert box.config.prices_file.endswith("prices.csv") and box.report.state == "staged"
    assert want(box) == {blob.sha256: ((0, wire.chunks_of(len(BOOK)) - 1),)}
    box.feed(blob.sha256, BOOK)
    box.wait(3)
    assert box.report.state == "active" and Path(box.config.prices_file).read_bytes() == BOOK
