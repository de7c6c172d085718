"""Two short words for a payment, to compare two screens by: what stands beside the QR also stands on the cashier's side.

A sticker laid over our QR cannot know them, for they come of this very attempt.  They are no secret and prove no payment.
"""

from __future__ import annotations

import hashlib

# Plain things that sound unlike each other, in Chinese and in English.
THINGS = (
    ("苹果", "APPLE"), ("香蕉", "BANANA"), ("樱桃", "CHERRY"), ("柠檬", "LEMON"), ("西瓜", "MELON"), ("桃子", "PEACH"),
    ("草莓", "BERRY"), ("玉米", "CORN"), ("茶壶", "TEAPOT"), ("雨伞", "UMBRELLA"), ("钥匙", "KEY"), ("铃铛", "BELL"),
    ("蜡烛", "CANDLE"), ("风筝", "KITE"), ("书本", "BOOK"), ("帽子", "HAT"), ("月亮", "MOON"), ("星星", "STAR"),
    ("太阳", "SUN"), ("雪花", "SNOW"), ("河流", "RIVER"), ("高山", "HILL"), ("大树", "TREE"), ("玫瑰", "ROSE"),
    ("老虎", "TIGER"), ("熊猫", "PANDA"), ("兔子", "RABBIT"), ("海豚", "DOLPHIN"), ("金鱼", "FISH"), ("小鸟", "BIRD"),
    ("骆驼", "CAMEL"), ("火车", "TRAIN"),
)


def check_words(order_no: str) -> tuple[str, str]:
    """`("苹果 27", "APPLE 27")` of one attempt; one in 2,880 for another."""
    digest = hashlib.sha256(order_no.encode()).digest()
    number = 10 + int.from_bytes(digest[1:4]) % 90
    zh, en = THINGS[digest[0] % len(THINGS)]
    return f"{zh} {number}", f"{en} {number}"
