"""Who asks at WeChat: a merchant by its own numbers, or a service provider for one of its shops.

Knows whose numbers belong together.  Source: WeChat Pay merchant and partner documentation, API v3 (fields sp_ and sub_).
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.channels.wechat_forms import Refused, text
from sim.channels.wechat_orders import Body


class Merchants:
    """`mchid` and `appid` of whoever signs; `subs` its shops, sub_mchid to sub_appid ("" for none), empty for a merchant."""

    def __init__(self, mchid: str, appid: str, subs: Mapping[str, str]) -> None:
        self.mchid, self.appid, self.subs = mchid, appid, dict(subs)

    def asked(self, body: Body, *, apps: bool) -> tuple[str, Body]:
        """Which shop a body is for ("" for the merchant itself), and the body without the numbers that say so.  Refused."""
        sp = "sp_" if self.subs else ""
        must = [f"{sp}mchid", *([f"{sp}appid"] if apps else [])]
        for name in must:
            text(body, name, 32)
        if body[f"{sp}mchid"] != self.mchid:
            raise Refused("mchid", f"/{sp}mchid")
        if apps and body[f"{sp}appid"] != self.appid:
            raise Refused("appid", f"/{sp}appid")
        sub, rest = self.shop(body)
        if self.subs and apps and (app := rest.pop("sub_appid", None)) is not None and app != self.subs[sub]:
            raise Refused("appid", "/sub_appid")
        return sub, {name: value for name, value in rest.items() if name not in must}

    def shop(self, fields: Mapping[str, object]) -> tuple[str, Body]:
        """Which shop a refund or a query is for, and the fields without its number.  Refused."""
        if not self.subs:
            return "", dict(fields)
        sub = str(fields.get("sub_mchid") or "")
        if not sub:
            raise Refused("sub_missing", "/sub_mchid")
        if sub == self.mchid:
            raise Refused("sub_own", "/sub_mchid")
        if sub not in self.subs:
            raise Refused("relation", "/sub_mchid")
        return sub, {name: value for name, value in fields.items() if name != "sub_mchid"}

    def told(self, sub_mchid: str, *, apps: bool = True) -> Body:
        """The numbers that a reply about an order of this shop carries."""
        if not self.subs:
            return {**({"appid": self.appid} if apps else {}), "mchid": self.mchid}
        said = {"sp_mchid": self.mchid, "sub_mchid": sub_mchid}
        if apps:
            said |= {"sp_appid": self.appid} | ({"sub_appid": self.subs[sub_mchid]} if self.subs[sub_mchid] else {})
        return said
