"""Alipay's bill: a ZIP as it comes, and ones that must not be believed."""

from __future__ import annotations

import io
import zipfile

import pytest

from device.drivers.channels import alipay_bill_bytes as bill
from device.drivers.channels.codec_bytes import BillRow
from sim.channels.alipay_bill import GbkName

HEAD = "支付宝交易号,商户订单号,业务类型,商品名称,完成时间,订单金额（元）,商家实收（元）,退款批次号/请求号,服务费（元）"
PAID = "2026A\t,T1\t,交易\t,奶茶\t,2026-11-23 10:00:00,5.00,5.00,\t,-0.03"
BACK = "2026A\t,T1\t,退款\t,奶茶\t,2026-11-23 11:00:00,-2.00,-2.00,R1\t,0.00"
SINCE = "#起始日期：[2026年11月23日 00:00:00]   终止日期：[2026年11月24日 00:00:00]"
SUMS = "#交易合计：1笔，商家实收共5.00元，商家优惠共0.00元\r\n#退款合计：1笔，商家实收退款共-2.00元，商家优惠退款共0.00元"
TEXT = "\r\n".join(("#支付宝业务明细查询", SINCE, HEAD, PAID, BACK, "#---业务明细列表结束---", SUMS, ""))


def packed(text: str, name: str = "20880156_20261123_业务明细.csv") -> bytes:
    """A ZIP whose member names are GBK without the flag: written as ASCII of one length, then put in place."""
    real = name.encode("gbk")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("@" * len(real), text.encode("gbk"))
    return made.getvalue().replace(b"@" * len(real), real)


def with_summary(sums: str) -> bytes:
    made, head = io.BytesIO(), "#支付宝业务汇总查询\r\n门店编号,交易订单总笔数,退款订单总笔数,订单金额（元）\r\nS1\t,1,1,3.00\r\n"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(GbkName("1_业务明细.csv"), TEXT.encode("gbk"))
        archive.writestr(zipfile.ZipInfo("1_业务明细(汇总).csv"), f"{head}{sums}\r\n".encode("gbk"))      # with the flag, this one
    return made.getvalue()


def test_the_summary_must_agree_with_what_was_ordered() -> None:
    for good in ("合计,1,1,3.00", ""):
        assert len(bill.rows_of(with_summary(good), day="2026-11-23")) == 2
    for bad in ("合计,2,1,3.00", "合计,1,0,3.00", "合计,1,1,3.01", "合计,1,1", "合计"):
        with pytest.raises(ValueError, match="summary|no amount"):
            bill.rows_of(with_summary(bad), day="2026-11-23")


def test_rows_by_header_name() -> None:
    assert bill.rows_of(packed(TEXT), day="2026-11-23") == (
        BillRow("paid", "T1", 500, "2026-11-23T10:00:00+08:00", "2026A", "", -3000, "交易"),
        BillRow("refund", "T1", 200, "2026-11-23T11:00:00+08:00", "2026A", "R1", 0, "退款"))


@pytest.mark.parametrize(("old", "new", "why"), [
    (PAID + "\r\n", "", "sums"), (PAID, PAID + "\r\n" + PAID, "sums"), ("5.00,5.00", "5.00,4.00", "sums"), (SUMS, "", "sums"),
    ("5.00,5.00", "5,5.00", "no amount"), ("退款\t", "转账\t", "kind"), ("-2.00,-2.00", "2.00,-2.00", "sign"),
    ("服务费（元）", "费", "no column"), (SINCE, "", "another day"), ("2026年11月23日", "2026年11月22日", "another day"),
    ("2026-11-23 11", "2026-11-24 11", "another day"), ("2026-11-23 10", "x", "no time"), ("奶茶\t", "奶,茶\t", "values"),
    ("奶茶\t", "奶\r茶\t", "no CSV"), ("奶茶\t", "茶" * 131_073, "no CSV")])
def test_an_altered_bill_is_not_believed(old: str, new: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bill.rows_of(packed(TEXT.replace(old, new, 1)), day="2026-11-23")


def test_what_is_no_bill_or_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    for junk in (b"", b"<html>", packed(TEXT)[:60]):
        with pytest.raises(ValueError, match="no readable ZIP"):
            bill.rows_of(junk, day="2026-11-23")
    with pytest.raises(ValueError, match="no detail file"):
        bill.rows_of(packed(TEXT, "x_业务明细(汇总).csv"), day="2026-11-23")
    monkeypatch.setattr(bill, "UNPACKED_BYTES_MAX", 50)
    with pytest.raises(ValueError, match="more than we take"):
        bill.rows_of(packed(TEXT), day="2026-11-23")
