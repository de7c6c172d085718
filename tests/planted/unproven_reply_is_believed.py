"""Planted: WeChat's replies count whoever signed them."""

from device.drivers.channels.wechat import WechatCodec


def plant(put) -> None:
    honest = WechatCodec._judged
    put(WechatCodec, "_judged", lambda codec, effect, reply, doubt, now_s: honest(codec, effect, reply, "", now_s))
