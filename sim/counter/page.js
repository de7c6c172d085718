// The page shows what the server says and sends what hands do.  It keeps no truth of its own: every figure comes from
// the event stream, every picture from the driver's bytes.
"use strict";
const $ = (id) => document.getElementById(id);
const yuan = (fen) => (fen < 0 ? "-" : "") + "¥" + Math.floor(Math.abs(fen) / 100) + "." + String(Math.abs(fen) % 100).padStart(2, "0");
const make = (tag, props = {}, ...kids) => { const e = Object.assign(document.createElement(tag), props); e.append(...kids); return e; };
const duo = (zh, en) => [zh + " ", make("em", { textContent: en })];

const KEYS = [
  ["7", "", "", "digit"], ["8", "", "", "digit"], ["9", "", "", "digit"], ["QTY", "数量"], ["VOID", "删行"], ["CLEAR", "清除", "", "stop"],
  ["4", "", "", "digit"], ["5", "", "", "digit"], ["6", "", "", "digit"], ["HOLD", "挂单"], ["PARK", "转挂"], ["CANCEL", "取消", "", "stop"],
  ["1", "", "", "digit"], ["2", "", "", "digit"], ["3", "", "", "digit"], ["CODE", "付款码"], ["CHECK", "查询"], ["REFUND", "退款"],
  ["0", "", "", "digit"], ["00", "", "", "digit"], ["ENTER", "确认", "", "enter"], ["CASH", "现金", "", "go"], ["PAY", "扫码支付", "", "go w2"],
  ["REPRINT", "补打"], ["DRAWER", "钱箱"], ["X", "读数", "", "w2"], ["Z", "日结", "", "w2"]];
const WALLETS = [["wechat", "微信", "WeChat"], ["alipay", "支付宝", "Alipay"], ["unionpay", "云闪付", "UnionPay"], ["ecny", "数币", "e-CNY"], ["card", "银行卡", "Card"]];
const FAULTS = [
  ["link", "断网线", "Link to the broker"], ["broker", "消息服务停", "Broker down"], ["collector", "云端停", "Collector down"],
  ["channel_slow", "渠道慢", "Channel slow"], ["channel_lying", "渠道乱答", "Channel lying"], ["channel_down", "渠道断", "Channel down"],
  ["printer_paper", "缺纸", "Out of paper"], ["printer_off", "打印机关", "Printer off"], ["printer_dies", "打到一半断电", "Printer dies mid-job"],
  ["scanner", "拔扫描枪", "Scanner unplugged"], ["power_cut", "整机断电 3 秒", "Power cut, 3 s"], ["clock_jump", "时钟跳变", "Clock jump"]];
const PARTS = { printer: "打印机 Printer", scanner: "扫描枪 Scanner", keypad: "键盘 Keypad", display: "屏 Display", link: "云链路 Link", collector: "云端 Collector", prices: "价目表 Prices", signer: "签名 Signer", journal: "账本 Journal", clock: "时钟 Clock" };

let goods = [], chosen = null, wallet = "wechat", now = null, heard = null, toastTimer = 0;

async function post(path, body) {
  try {
    const reply = await fetch(path, { method: "POST", body: JSON.stringify(body) });
    const answer = await reply.json();
    if (!reply.ok) toast(answer.error);
    return { status: reply.status, ...answer };
  } catch { toast("柜台程序没有应答 The counter does not answer"); return { error: "no answer" }; }
}
function toast(text) {
  $("toast").textContent = text; $("toast").hidden = false;
  clearTimeout(toastTimer); toastTimer = setTimeout(() => { $("toast").hidden = true; }, 4000);
}

// ---- hands
for (const [key, zh, , cls] of KEYS) {
  const digit = cls === "digit";
  const b = make("button", { type: "button", className: cls || "", title: key }, digit ? key : zh);
  if (!digit) b.append(make("em", { textContent: key }));
  b.dataset.key = key;
  b.onclick = () => post("/key", { key });
  $("keys").append(b);
}
for (const [name, zh, en] of WALLETS) {
  const b = make("button", { type: "button", ariaSelected: String(name === wallet) }, zh, make("em", { textContent: en }));
  b.dataset.wallet = name; b.setAttribute("role", "tab");
  b.onclick = () => { wallet = name; for (const o of $("wallets").children) o.ariaSelected = String(o === b); };
  $("wallets").append(b);
}
for (const [kind, zh, en] of FAULTS) {
  const b = make("button", { type: "button", ariaPressed: "false" }, make("b", { textContent: zh }), make("em", { textContent: en }));
  b.dataset.fault = kind;
  if (kind === "power_cut" || kind === "printer_dies") b.classList.add("once");
  b.onclick = () => post("/fault", kind === "power_cut" ? { kind, on: true, seconds: 3 } : { kind, on: b.ariaPressed !== "true" });
  $("faults").append(b);
}
document.querySelectorAll("[data-outcome]").forEach((b) => { b.onclick = () => phoneScan(b.dataset.outcome); });
async function phoneScan(outcome) {
  const card = wallet === "card";
  const r = await post(card ? "/card/tap" : "/phone/scan", card ? { outcome } : { wallet, qr: shownQr() || undefined, outcome });
  said(r.error ? r.error : { pay: card ? "已刷卡 Card tapped" : "已付款 Paid by phone", abandon: "已放弃 Abandoned", insufficient: "余额不足 Not enough money", slow: "处理中，稍后付款 Paying, slowly" }[outcome], !r.error && outcome === "pay");
}
$("code").onclick = async () => {
  const r = await post("/phone/code", { wallet });
  said(r.error || "付款码 Payment code " + r.code, !r.error);
  if (r.code) $("scan-code").value = r.code;
};
function said(text, good) { $("said").textContent = text; $("said").className = "said " + (good ? "good" : "bad"); }
const shownQr = () => now && now.display && now.display.qr;

// ---- goods
fetch("/products.json").then((r) => r.json()).then((rows) => { goods = rows; showGoods(""); });
function showGoods(text) {
  const word = text.trim().toLowerCase();
  const hits = goods.filter((g) => !word || (g.gtin + g.name_zh + g.name_en).toLowerCase().includes(word));
  const first = word ? hits : [...hits.filter((g) => g.unit === "piece").slice(0, 10), ...hits.filter((g) => g.unit === "kg").slice(0, 2), ...hits.filter((g) => g.unit === "piece").slice(10), ...hits.filter((g) => g.unit === "kg").slice(2)];
  $("goods").replaceChildren(...first.slice(0, 200).map((g) => {
    const b = make("button", { type: "button", className: g.unit === "kg" ? "kg" : "", title: g.gtin + " " + g.name_zh + " " + g.name_en },
      make("b", { textContent: g.name_zh }), make("em", { textContent: g.name_en }), make("i", { textContent: yuan(g.price_fen) }));
    b.dataset.gtin = g.gtin;
    b.onclick = () => (g.unit === "kg" ? weigh(g) : post("/scan", { code: g.gtin }));
    return b;
  }));
  $("goods-count").textContent = goods.length ? `${hits.length} / ${goods.length} 种商品 goods · 称重商品先打签 goods by weight get a label first` : "价目表还没有商品 The price list is empty";
}
$("scan-code").oninput = (e) => showGoods(/^\d{6,}$/.test(e.target.value) ? "" : e.target.value);
$("scan-form").onsubmit = (e) => {
  e.preventDefault();
  const code = $("scan-code").value;
  if (code) { post("/scan", { code }); $("scan-code").value = ""; showGoods(""); }
};
function weigh(g) { chosen = g; $("weigh").hidden = false; $("weigh-name").textContent = g.name_zh + " " + yuan(g.price_fen) + "/kg"; $("weigh-g").focus(); $("weigh-g").select(); }
$("weigh-no").onclick = () => { $("weigh").hidden = true; };
$("weigh-go").onclick = () => {
  const grams = Number($("weigh-g").value);
  if (!Number.isInteger(grams) || grams < 1 || grams > 99999) { toast("重量为 1 到 99999 克 A label carries 1 to 99999 g"); return; }
  post("/scan", { code: label(chosen.gtin, grams) }); $("weigh").hidden = true;
};
$("weigh-g").onkeydown = (e) => { if (e.key === "Enter") $("weigh-go").click(); };
// An in-store label: the goods' 7 leading digits, 5 of grams, the check digit.
function label(gtin, grams) {
  const body = gtin.slice(0, 7) + String(grams).padStart(5, "0");
  const sum = [...body].reduce((s, d, i) => s + Number(d) * (i % 2 ? 3 : 1), 0);
  return body + (10 - sum % 10) % 10;
}

// ---- what the server says
const source = new EventSource("/events");
source.onmessage = (e) => { now = JSON.parse(e.data); show(now); };
source.onerror = () => { $("phase").textContent = "OFFLINE"; $("phase").dataset.phase = "DOWN"; };

function show(o) {
  const s = o.state || {}, d = o.display || {};
  $("phase").textContent = o.daemon.up ? s.phase || "…" : "DOWN"; $("phase").dataset.phase = o.daemon.up ? s.phase || "" : "DOWN";
  $("total").textContent = yuan(s.total_fen || 0); $("unacked").textContent = s.unacked ?? "—";
  $("held").textContent = (s.held || []).length; $("parked").textContent = (s.parked || []).length;
  $("notice").textContent = s.notice || ""; $("notice").dataset.tone = d.tone || "plain"; $("typed").textContent = d.typed || "";
  $("health").replaceChildren(...Object.entries(s.health || {}).map(([part, word]) =>
    make("span", { className: word === "ok" || word === "up" ? "" : "bad", title: part + ": " + word }, (PARTS[part] || part) + (word === "ok" || word === "up" ? "" : " · " + word))));
  document.querySelector(".screen").classList.toggle("dead", !o.daemon.up);
  if (o.frame && $("display").dataset.frame !== o.frame) { $("display").dataset.frame = o.frame; $("display").src = "/display.png?" + o.frame; }
  $("display-none").hidden = !!o.frame;
  if (heard !== null && o.sound && o.sound !== heard) new Audio("/sound.wav?" + o.sound).play().catch(() => {});
  heard = o.sound || "";
  const qr = d.qr || "", asks = wallet === "card" && (s.orders || []).some((x) => x.way === "card" && x.phase === "awaiting");
  $("view").classList.toggle("live", !!qr);
  $("ask-what").replaceChildren(...(qr ? duo("看到付款码", "Sees a QR for") : duo("没有付款码", "No QR to scan")));
  const order = (s.orders || []).find((x) => x.order_no === d.order_no);
  $("ask-sum").textContent = qr ? yuan(order && order.amount_fen ? order.amount_fen : d.total_fen || 0) : "";
  if (asks) $("ask-what").replaceChildren(...duo("刷卡机等卡", "The terminal asks for a card"));
  $("pay").disabled = !(wallet === "card" ? asks : qr); $("code").disabled = wallet === "card";
  for (const b of $("faults").children) b.ariaPressed = String(!!o.faults[b.dataset.fault]);
  showPaper(o.receipts || []); showCloud(o.cloud || {}); showChannel(o.orders || []); showConsole(o, s);
}
function showPaper(list) {
  const paper = $("paper"), have = paper.querySelectorAll(".strip").length;
  $("paper-count").textContent = list.length ? list.length + " 张 sheets" : "";
  if (list.length < have) paper.replaceChildren();
  if (list.length && paper.querySelector(".empty")) paper.replaceChildren();
  for (const r of list.slice(list.length < have ? 0 : have)) {
    const links = make("span", {}, ...["txt", "bin", "png"].map((x) => make("a", { href: `/receipts/${r.n}.${x}`, target: "_blank", textContent: x })));
    const strip = make("div", { className: "strip fresh" }, make("img", { src: `/receipts/${r.n}.png`, alt: "Receipt " + r.n, loading: "lazy" }), make("footer", {}, make("span"), links));
    paper.prepend(strip);
  }
  for (const r of list) {
    const strip = paper.children[list.length - r.n];
    if (strip) { const f = strip.querySelector("footer span"); f.textContent = `#${r.n}${r.copy ? " · COPY" : ""} · ${r.state}`; f.className = r.state === "unsure" ? "unsure" : ""; }
  }
}
function figures(id, pairs) { $(id).replaceChildren(...pairs.map(([zh, v]) => make("span", {}, make("i", { textContent: zh }), make("b", { textContent: v })))); }
function badge(id, text, good) { $(id).textContent = text; $(id).className = "badge " + (good === undefined ? "" : good ? "good" : "bad"); }
function showCloud(c) {
  badge("cloud-badge", c.count ? (c.verified ? `✓ ${c.count} 条已验签 verified` : "✗ " + c.defect) : "空 empty", c.count ? c.verified : undefined);
  figures("cloud-figures", [["销售 Sales", yuan(c.sales_fen || 0)], ["退款 Refunds", yuan(c.refunds_fen || 0)], ["净额 Net", yuan((c.sales_fen || 0) - (c.refunds_fen || 0))]]);
  $("cloud-rows").replaceChildren(...(c.last || []).map((r) => make("tr", {}, make("td", { className: "mono", textContent: r.seq }), make("td", { textContent: r.kind }),
    make("td", { className: "r", textContent: r.amount_fen == null ? "" : (r.kind === "refund" ? "−" : "") + yuan(r.amount_fen) }), make("td", { className: "mono", textContent: (r.at || "").slice(11, 19) }))));
}
function showChannel(orders) {
  const sum = (k) => orders.reduce((t, x) => t + (x[k] || 0), 0);
  badge("channel-badge", orders.length ? orders.length + " 单 orders" : "空 empty");
  figures("channel-figures", [["收款 Captured", yuan(sum("captured_fen"))], ["退款 Refunded", yuan(sum("refunded_fen"))], ["净额 Net", yuan(sum("captured_fen") - sum("refunded_fen"))]]);
  $("channel-rows").replaceChildren(...orders.slice(-60).reverse().map((x) => make("tr", {}, make("td", { className: "mono", textContent: "…" + x.order_no.slice(-9), title: x.order_no }),
    make("td", {}, make("span", { className: "s " + x.state, textContent: x.state })), make("td", { className: "r", textContent: yuan(x.captured_fen) }), make("td", { className: "r", textContent: x.refunded_fen ? yuan(x.refunded_fen) : "" }))));
}
function showConsole(o, s) {
  badge("daemon-badge", o.daemon.up ? "pid " + o.daemon.pid : "停 down", o.daemon.up);
  const rows = [`phase     ${s.phase || "-"}`, `total     ${yuan(s.total_fen || 0)}   lines ${(s.lines || []).length}`, `unacked   ${s.unacked ?? "-"}   oldest ${s.oldest_unacked_s ?? "-"} s`,
    `starts    ${o.daemon.starts}`, ...Object.entries(s.health || {}).map(([p, w]) => `${p.padEnd(9)} ${w}`),
    ...(s.orders || []).map((x) => "order     " + x.order_no + "  " + (x.phase || x.state || "") + "  " + yuan(x.amount_fen || 0)),
    ...(s.parked || []).map((x) => "parked    " + JSON.stringify(x)), ...(s.held || []).map((x) => "held      " + JSON.stringify(x)), ...(s.notice ? ["notice    " + s.notice] : [])];
  const text = rows.join("\n");
  if ($("console").textContent !== text) $("console").textContent = text;
}
