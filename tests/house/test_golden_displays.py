"""Displays as a customer sees them: what is drawn now is what was looked at, and the phone reads it."""

from __future__ import annotations

import zxingcpp
from PIL import Image, ImageChops

from tests.golden.__main__ import HERE
from tests.golden.display_frames import RECEIPT, URL, images

FAR = 24                # of 255: what a step of the palette, or another build of the same font library, may move a pixel by
MANY = 0.002            # of all pixels may be further off


def apart(one: Image.Image, other: Image.Image) -> float:
    """Share of the pixels that differ by more than FAR in any channel; 1.0 when the sizes do."""
    if one.size != other.size:
        return 1.0
    bands = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).split()
    worst = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    return sum(worst.histogram()[FAR + 1:]) / (one.width * one.height)


def test_every_golden_display_is_what_is_drawn_now():
    """`python -m tests.golden displays` draws them anew; look at the difference before you keep it."""
    now = images()
    assert {file.name for file in (HERE / "displays").glob("*.png")} == set(now)
    for name, image in now.items():
        kept = Image.open(HERE / "displays" / name)
        assert apart(kept, image) <= MANY, name
        told = [found.text for found in zxingcpp.read_barcodes(kept.convert("L"))]
        assert told == ([URL] if "pay" in name and name[0].isdigit() else [RECEIPT] if "receipt" in name else []), name


def test_another_digit_is_no_small_difference():
    with Image.open(HERE / "displays" / "800x480-basket.png") as kept:
        other = kept.convert("RGB")
    other.paste((255, 255, 255), (600, 340, 640, 410))                    # one digit of the total
    assert apart(kept, other) > MANY
