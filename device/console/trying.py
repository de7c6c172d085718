"""Commands that try a device: each asks for one human act and judges the result.

The daemon owns the devices while it lives, so it is asked to use them, with the cause on record.  While it is dead the console
opens the very drivers itself, for as long as the test takes.  Nothing is sold, and no money moves.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from device.ask import DaemonAway, ask
from device.config import Config
from device.console.asking import alive, deed, told
from device.console.session import Call, Failed
from device.errors import DriverBusy, DriverGone, Outside
from device.goods import gtin_key

SCAN_S_MAX = 30
PAPER_S_MAX = 20
_BEAT_S = 0.2


def scan(c: Call) -> Iterator[str]:
    config = _config(c)
    if config.scanner.kind == "none":
        raise Failed("NONE", c.t("配置里没有扫描枪", "no scanner is configured"))
    c.say(c.t(f"请在 {SCAN_S_MAX} 秒内扫一个商品码。", f"Scan one symbol from any goods within {SCAN_S_MAX} s."))
    if alive(c.place):
        yield from _scanned_by_daemon(c)
        return
    from device.drivers.registry import drivers_of
    from device.txn.inputs import DeviceSaid, Scanned, ScanSpoiled

    async def first() -> Any:
        made = drivers_of(_bare(config), lambda symbol: None)
        driver = next(driver for part, driver in made.items() if part.startswith("scanner"))
        try:
            async with asyncio.timeout(SCAN_S_MAX):
                async for said in driver.inputs():
                    if isinstance(said, Scanned | ScanSpoiled) or (isinstance(said, DeviceSaid) and said.word not in ("ok", "")):
                        return said
        except TimeoutError:
            return None
        finally:
            await driver.close()

    said = asyncio.run(first())
    if said is None:
        raise Failed("SILENT", c.t("没有扫到任何东西：看线、口、是否睡眠",
                                   "nothing came: look at the cable, the port, and whether it sleeps"))
    if isinstance(said, ScanSpoiled):
        raise Failed("SPOILED", said.why)
    if isinstance(said, DeviceSaid):
        raise Failed("SCANNER", f"{said.word} {said.why}".strip())
    symbol = said.symbol
    yield c.t(f"收到 {len(symbol)} 个字符", f"{len(symbol)} characters came") + (f": {symbol}" if _is_goods(symbol) else "")


def print_slip(c: Call) -> Iterator[str]:
    config = _config(c)
    if config.printer.kind == "none":
        raise Failed("NONE", c.t("配置里没有打印机", "no printer is configured"))
    if alive(c.place):
        yield deed(c, "print test")
        _until_printed(c)
    else:
        from device.txn.effects import Cut, PaperPart, Ruler, Text
        paper: tuple[PaperPart, ...] = (
            Text("打印测试 / Print test", "c", 2), Ruler(), Text(f"{config.box}  {c.visit.who if c.visit else ''}"),
            Text("收款 小票 ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ¥"), Ruler(), Cut())
        yield from put_on_paper(c, paper)
    _confirmed(c, c.t("小票出来了，字清楚吗？", "Did a slip come out, and can it be read?"), "PAPER")


def put_on_paper(c: Call, paper: Any) -> Iterator[str]:
    """Print while the daemon is dead; Failed with the printer's own word."""
    from device.drivers.registry import drivers_of
    from device.txn.effects import Print
    from device.txn.inputs import PrintUnsure

    async def once() -> Any:
        printer = drivers_of(_bare(_config(c)), lambda symbol: None)["printer"]
        try:
            async with asyncio.timeout(PAPER_S_MAX):
                return await printer.do(Print(1, paper))
        finally:
            await printer.close()

    said = _outcome(c, once())
    yield c.t("不能确定是否全部上了纸", "it cannot say whether all of it is on paper") if isinstance(said, PrintUnsure) else c.t(
        "打印机收下了", "the printer took it")


def display(c: Call) -> Iterator[str]:
    config = _config(c)
    if all(one.kind == "none" for one in config.displays):
        raise Failed("NONE", c.t("配置里没有顾客屏", "no display is configured"))
    number = f"{secrets.randbelow(9000) + 1000}"
    if alive(c.place):
        deed(c, "display test", number)
    else:
        from device.drivers.registry import displays_of
        from device.txn.screen import Screen
        for shown in displays_of(config).values():
            try:
                asyncio.run(shown.show(Screen("IDLE", "屏幕测试 / Display test", big=number, lang=config.lang), 0))
            except Outside as why:
                raise Failed("DISPLAY", str(why)) from None
    read = c.ask(c.t("屏上是哪四位数？", "Which four digits does the display show?"))
    if read != number:
        raise Failed("DISPLAY", c.t(f"屏上应是 {number}", f"it should show {number}"))
    yield c.t("屏幕清楚", "the display shows what it should")


def drawer(c: Call) -> Iterator[str]:
    config = _config(c)
    if config.printer.kind == "none":
        raise Failed("NONE", c.t("钱箱接在打印机上，配置里没有打印机", "the drawer hangs on the printer, and none is configured"))
    if config.approve_drawer and (c.visit is None or c.visit.level != "full"):
        raise Failed("LEVEL", c.t("这台收银机开钱箱要主管批准：请用 full 级别",
                                  "this box opens its drawer by hand with a supervisor alone: log in at the level full"))
    if alive(c.place):
        yield deed(c, "drawer test")
    else:
        from device.drivers.registry import drivers_of
        from device.txn.effects import KickDrawer

        async def once() -> Any:
            printer = drivers_of(_bare(config), lambda symbol: None)["printer"]
            try:
                async with asyncio.timeout(PAPER_S_MAX):
                    return await printer.do(KickDrawer(1))
            finally:
                await printer.close()

        _outcome(c, once())
        yield c.t("脉冲已发", "the pulse left")
    _confirmed(c, c.t("钱箱弹开了吗？", "Did the drawer open?"), "DRAWER")


# Helpers -------------------------------------------------------------------------------------------------------------

def _scanned_by_daemon(c: Call) -> Iterator[str]:
    """The daemon takes the next scan away from the till and shows it: nothing is sold of it."""
    begun = _scan(c, "test")
    if not begun["ok"]:
        raise Failed("SCANNER", c.t("正在服务顾客，请稍后再试", str(begun["error"])))
    for _ in range(int(SCAN_S_MAX / _BEAT_S)):
        look = _scan(c, "look")["scan"]
        if look["said"] and look["said"]["why"]:
            raise Failed("SPOILED", f"{look['said']['part']}: {look['said']['why']}")
        if look["said"]:
            said = look["said"]
            yield f"{said['part']}: " + c.t(f"收到 {said['length']} 个字符", f"{said['length']} characters came") + (
                f": {said['symbol']}" if _is_goods(said["symbol"]) else "") + (f"  {said['kind']}" if said["kind"] else "")
            return
        if look["over"]:
            break
        c.pause(_BEAT_S)
    health = (told(c.place, "state") or {"state": {"health": {}}})["state"]["health"]
    word = ", ".join(f"{part} {word}" for part, word in sorted(health.items()) if part.startswith("scanner")) or "?"
    raise Failed("SILENT", c.t(f"没有扫到任何东西；守护进程说 {word}", f"nothing came; the daemon says: {word}"))


def _scan(c: Call, do: str) -> dict[str, Any]:
    try:
        return ask(c.place.socket, "scan", do=do)
    except DaemonAway:
        raise Failed("DAEMON", c.t("守护进程没有回答", "the daemon does not answer")) from None


def _until_printed(c: Call) -> None:
    for _ in range(int(PAPER_S_MAX / _BEAT_S)):
        said = told(c.place, "state")
        papers = [one for one in (said or {"state": {}})["state"].get("papers", []) if one["kind"] == "test"]
        if not papers:
            return
        if papers[-1]["state"] in ("unsure", "refused"):
            raise Failed("PAPER", c.t("打印机没有确认：", "the printer did not confirm it: ") + papers[-1]["state"])
        c.pause(_BEAT_S)
    raise Failed("PAPER", c.t("测试条还在等打印机，见 doctor", "the slip still waits for the printer: see doctor"))


def _outcome(c: Call, work: Any) -> Any:
    try:
        return asyncio.run(work)
    except (DriverGone, DriverBusy) as why:
        raise Failed("PRINTER", f"{why.what} {why.hint}".strip()) from None
    except TimeoutError:
        raise Failed("PRINTER", c.t("打印机不回答", "the printer does not answer")) from None


def _confirmed(c: Call, question: str, code: str) -> None:
    answer = c.ask(f"{question} {c.t('是 y 否 n:', 'y/n:')}").lower()
    if answer not in ("y", "yes", "是"):
        raise Failed(code, c.t("技术员说没有", "the technician says no"))


def _config(c: Call) -> Config:
    if c.place.config is None:
        raise Failed("CONFIG", c.t("box.toml 不能用，doctor 说明原因", "box.toml is refused; doctor says why"))
    return c.place.config


def _bare(config: Config) -> Config:
    """Without channels: a test of a printer loads no merchant's key."""
    return msgspec.structs.replace(config, channels=())


def _is_goods(symbol: str) -> bool:
    # Anything else may be a payer's code, and is not for scrollback.
    return symbol.isascii() and symbol.isdigit() and gtin_key(symbol) is not None
