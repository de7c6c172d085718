// The page shows what the server says and sends what hands do.  It keeps no truth of its own: every figure comes from
// the event stream, every picture from the driver's bytes.
"use strict";
const $ = (id) => document.getElementById(id);
const yuan = (fen) => (fen < 0 ? "-" : "") + "¥" + Math.floor(Math.abs(fen) / 100) + "." + String(Math.abs(fen) % 100).padStart(2, "0");
const make = (tag, props = {}, ...kids) => { const e = Object.assign(document.createElement(tag), props); e.append(...kids); return e; };
const dot = (name) => { const i = make("i", { className: "dot" }); i.dataset.of = name; return i; };
const duo = (zh, en) => [zh + " ", make("em", { textContent: en })];

const KEYS = [
  ["7", "", "", "digit"], ["8", "", "", "digit"], ["9", "", "", "digit"], ["QTY", "数量"], ["VOID", "删行"], ["CLEAR", "清除", "", "stop"],
  ["4", "", "", "digit"], ["5", "", "", "digit"], ["6", "", "", "digit"], ["HOLD", "挂单"], ["PARK", "转挂"], ["CANCEL", "取消", "", "stop"],
  ["1", "", "", "digit"], ["2", "", "", "digit"], ["3", "", "", "digit"], ["CODE", "付款码"], ["CHECK", "查询"], ["REFUND", "退款"],
  ["0", "", "", "digit"], ["00", "", "", "digit"], ["ENTER", "确认", "", "enter"], ["CASH", "现金", "", "go"], ["PAY", "扫码支付", "", "go w2"],
  ["REPRINT", "补打"], ["DRAWER", "钱箱"], ["X", "读数", "", "w2"], ["Z", "日结", "", "w2"]];
const WALLETS = [["wechat", "微信", "WeChat"], ["alipay", "支付宝", "Alipay"], ["unionpay", "云闪付", "UnionPay"], ["ecny", "数币", "e-CNY"], ["card", "银行卡", "Card"]];
const CHANNELS = [["wechat", "微信", "WeChat"], ["alipay", "支付宝", "Alipay"], ["unionpay", "银联", "UnionPay"], ["gateway", "聚合", "Gateway"], ["card", "刷卡机", "Card"]];
const CARDS = [
  ["code", "付款码", "phone's code"], ["paid", "我已付款", "I have paid"], ["receipt", "最近小票", "last receipt"],
  ["TBC-FQ-3-SHOP-7Q4K", "分 3 期", "3 months"], ["TBC-FQ-6-SHOP-7Q4K", "分 6 期", "6 months"], ["TBC-FQ-12-PAYER", "分 12 期", "12 months"],
  ["TBC-BADGE-0001", "主管卡", "PIN 2468"]];
const FAULTS = [
  ["link", "断网线", "Link to the broker"], ["broker", "消息服务停", "Broker down"], ["collector", "云端停", "Collector down"],
  ["printer_paper", "缺纸", "Out of paper"], ["printer_off", "打印机关", "Printer off"], ["printer_dies", "打到一半断电", "Printer dies mid-job"],
  ["printer_low", "纸将尽", "Paper low"], ["printer_cover", "机盖开", "Cover open"], ["printer_cutter", "切刀卡", "Cutter jammed"],
  ["printer_hot", "打印头过热", "Head hot"], ["printer_mute", "打印机不答", "Printer mute"], ["printer_model", "换了打印机", "Other printer"],
  ["scanner", "拔扫描枪", "Scanner unplugged"], ["keypad", "拔键盘", "Keypad unplugged"], ["display", "拔客显", "Pole unplugged"],
  ["power_cut", "整机断电 3 秒", "Power cut, 3 s"], ["clock_jump", "时钟跳变", "Clock jump"]];
const CHANNEL_FAULTS = [["channel_slow", "慢", "Slow"], ["channel_lying", "乱答", "Lying"], ["channel_down", "断", "Down"]];
const PARTS = { printer: "打印机 Printer", scanner: "扫描枪 Scanner", keypad: "键盘 Keypad", display: "屏 Display", link: "云链路 Link", collector: "云端 Collector", prices: "价目表 Prices", signer: "签名 Signer", journal: "账本 Journal", clock: "时钟 Clock" };

let goods = [], shown = {}, only = "", chosen = null, wallet = "wechat", now = null, heard = null, toastTimer = 0;

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
CHANNELS.forEach(([name, zh, en], n) => {
  const b = make("button", { type: "button", title: `${n + 1} PAY` }, dot(name), make("b", { textContent: zh }), make("em", { textContent: `${n + 1} PAY` }));
  b.dataset.by = name; b.setAttribute("aria-label", en + " " + (n + 1) + " PAY");
  b.onclick = async () => { if ((await post("/key", { key: String(n + 1) })).ok) post("/key", { key: "PAY" }); };
  $("by").append(b);
});
// What is scanned besides goods: the phone's screen, paper, and the cards that lie at the counter.
for (const [what, zh, en] of CARDS) {
  const b = make("button", { type: "button" }, make("b", { textContent: zh }), make("em", { textContent: en }));
  b.dataset.card = what;
  b.onclick = () => {
    const code = what === "code" ? shown.code : what === "paid" ? shown.order : what === "receipt" ? lastReceipt() : what;
    if (code) post("/scan", { code }); else toast({ code: "手机还没有出示付款码 The phone shows no code yet", paid: "手机还没有付过款 The phone has paid nothing yet" }[what] || "还没有小票 There is no receipt yet");
  };
  $("cards").append(b);
}
const lastReceipt = () => ((now && now.receipts) || []).map((r) => r.order_no).filter(Boolean).pop();
for (const [name, zh, en] of WALLETS) {
  const b = make("button", { type: "button", ariaSelected: String(name === wallet) }, zh, make("em", { textContent: en }));
  b.dataset.wallet = name; b.setAttribute("role", "tab");
  b.onclick = () => { wallet = name; for (const o of $("wallets").children) o.ariaSelected = String(o === b); };
  $("wallets").append(b);
}
$("matrix-head").append(make("tr", {}, make("th", {}, ...duo("渠道", "Channels")), ...CHANNELS.map(([name, zh, en]) => make("th", { title: en }, dot(name), " " + zh)), make("th", {}, ...duo("全部", "all"))));
for (const [kind, zh, en] of CHANNEL_FAULTS) {
  const toggle = (channel) => {
    const b = make("button", { type: "button", ariaPressed: "false", title: `${en}: ${channel || "all"}`, className: "toggle" });
    b.dataset.fault = kind; b.dataset.channel = channel;
    b.onclick = () => post("/fault", { kind, on: b.ariaPressed !== "true", ...(channel ? { channel } : {}) });
    return make("td", {}, b);
  };
  $("matrix").append(make("tr", {}, make("th", {}, ...duo(zh, en)), ...CHANNELS.map(([name]) => toggle(name)), toggle("")));
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
  if (r.order_no) shown.order = r.order_no;
  said(r.error ? r.error : { pay: card ? "已刷卡 Card tapped" : "已付款 Paid by phone", abandon: "已放弃 Abandoned", insufficient: "余额不足 Not enough money", slow: "处理中，稍后付款 Paying, slowly" }[outcome], !r.error && outcome === "pay");
}
$("code").onclick = async () => {
  const r = await post("/phone/code", { wallet });
  said(r.error || "付款码 Payment code " + r.code, !r.error);
  if (r.code) { shown.code = r.code; $("scan-code").value = r.code; }
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
  $("notice").textContent = s.notice || ""; $("notice").hidden = !s.notice; $("notice").dataset.tone = d.tone || "plain"; $("typed").textContent = d.typed || "";
  $("health").replaceChildren(...Object.entries(s.health || {}).map(([part, word]) =>
    make("span", { className: word === "ok" || word === "up" ? "" : "bad", title: part + ": " + word }, (PARTS[part] || part) + (word === "ok" || word === "up" ? "" : " · " + word))));
  document.querySelector(".screen").classList.toggle("dead", !o.daemon.up);
  if (o.frame && $("display").dataset.frame !== o.frame) { $("display").dataset.frame = o.frame; $("display").src = "/display.png?" + o.frame; }
  $("display-none").hidden = !!o.frame;
  if (heard !== null && o.sound && o.sound !== heard) new Audio("/sound.wav?" + o.sound).play().catch(() => {});
  heard = o.sound || "";
  const qr = d.qr || "", card = (s.orders || []).find((x) => x.way === "card" && x.phase === "awaiting"), asks = wallet === "card" && !!card;
  $("wallets").lastChild.classList.toggle("calls", !!card && !asks);
  $("view").classList.toggle("live", !!qr);
  const of = qr && CHANNELS.find((x) => x[0] === channelOf(qr));
  $("ask-what").replaceChildren(...(qr ? duo(`看到${of[1]}付款码`, of[0] === "gateway" ? "A QR for any wallet" : `${of[2]}'s QR`) : duo("没有付款码", "No QR to scan")));
  const order = (s.orders || []).find((x) => x.order_no === d.order_no);
  $("ask-sum").textContent = qr ? yuan(order && order.amount_fen ? order.amount_fen : d.total_fen || 0) : "";
  if (asks) { $("ask-what").replaceChildren(...duo("刷卡机等卡", "The terminal asks for a card")); $("ask-sum").textContent = yuan(card.amount_fen); }
  $("pay").disabled = !(wallet === "card" ? asks : qr); $("code").disabled = wallet === "card";
  for (const b of $("faults").children) b.ariaPressed = String(!!o.faults[b.dataset.fault]);
  for (const b of $("matrix").querySelectorAll("button")) {
    const on = o.faults[b.dataset.fault] || [];
    b.ariaPressed = String(b.dataset.channel ? on.includes(b.dataset.channel) : CHANNELS.every(([name]) => on.includes(name)));
  }
  showParts(s); showOpen(s);
  showPaper(o.receipts || []); showCloud(o.cloud || {}); showChannel(o.orders || []); showConsole(o, s);
}
function showParts(s) {
  const parts = s.tenders || [];
  $("parts").replaceChildren(...(parts.length ? [make("b", { textContent: "已付 Paid " }), ...parts.flatMap((t) => [tag(t.method), " " + yuan(t.amount_fen) + "  "]), make("b", { textContent: "还差 Due " + yuan(s.due_fen || 0) })]
    : duo("先键入分数即付一部分", "digits first: a part, in fen")));
}
function tag(name) { const c = CHANNELS.find((x) => x[0] === name); return make("span", { className: "tag" }, dot(name), c ? c[1] : name === "cash" ? "现金" : name); }
// Whatever waits, with its age, and the hand that ends it.
function showOpen(s) {
  const rows = [
    ...(s.parked || []).map((x) => ["转挂 Parked " + (x.slip || ""), tag(x.channel), x.amount_fen, x.policy === "give_back" ? "货已留 goods kept" : "货已给 goods given", x.phase, x.age_s, x.qr && x.phase !== "closed" ? ["手机付款 Phone pays", () => post("/phone/scan", { wallet: takes(x.qr), qr: x.qr })] : null]),
    ...(s.held || []).map((x) => ["挂单 Held " + x.slot, "", x.total_fen, x.lines + " 行 lines", "", null, ["取回 Recall", async () => { for (const d of String(x.slot)) await post("/key", { key: d }); post("/key", { key: "HOLD" }); }]]),
    ...(s.refunds || []).map((x) => ["退款 Refund", "", x.amount_fen, x.cause, x.accepted ? "已受理 accepted" : "申请中 asked", null, null]),
    ...(s.papers || []).map((x) => ["单据 Paper", "", null, x.kind, x.state, null, null])];
  badge("open-badge", rows.length ? String(rows.length) : "无 none", rows.length ? undefined : true);
  const text = JSON.stringify(rows.map((r) => [r[0], r[2], r[3], r[4], r[5]]));
  if ($("unsettled").dataset.text === text) return;
  $("unsettled").dataset.text = text;
  $("unsettled").replaceChildren(...rows.map(([what, channel, fen, how, state, age, hand]) => {
    const line = make("div", {}, make("b", { textContent: what }), channel, make("span", { className: "sum", textContent: fen === null ? "" : yuan(fen) }), make("span", { textContent: how }),
      make("span", { className: "s " + state, textContent: [state, age === null ? "" : age + " s"].filter(Boolean).join(" · ") }));
    if (hand) line.append(make("button", { type: "button", textContent: hand[0], onclick: hand[1] }));
    return line;
  }));
}
const channelOf = (qr) => (qr.startsWith("weixin:") ? "wechat" : qr.includes("//qr.alipay.com/") ? "alipay" : qr.includes("//qr.95516.com/") ? "unionpay" : "gateway");
const takes = (qr) => (channelOf(qr) !== "gateway" ? channelOf(qr) : wallet === "card" ? "wechat" : wallet);
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
  const net = (name) => orders.filter((x) => x.channel === name).reduce((t, x) => t + x.captured_fen - x.refunded_fen, 0);
  $("channel-tabs").replaceChildren(...CHANNELS.map(([name, zh]) => {
    const b = make("button", { type: "button", ariaPressed: String(only === name) }, dot(name), zh, make("b", { textContent: yuan(net(name)) }));
    b.onclick = () => { only = only === name ? "" : name; showChannel(orders); };
    return b;
  }));
  $("channel-rows").replaceChildren(...orders.filter((x) => !only || x.channel === only).slice(-60).reverse().map((x) => make("tr", {}, make("td", { className: "mono", textContent: "…" + x.order_no.slice(-9), title: x.order_no }),
    make("td", {}, tag(x.channel)), make("td", {}, make("span", { className: "s " + x.state, textContent: x.state })), make("td", { className: "r", textContent: yuan(x.captured_fen) }), make("td", { className: "r", textContent: x.refunded_fen ? yuan(x.refunded_fen) : "" }))));
}
function showConsole(o, s) {
  badge("daemon-badge", o.daemon.up ? "pid " + o.daemon.pid : "停 down", o.daemon.up);
  const rows = [`phase     ${s.phase || "-"}`, `total     ${yuan(s.total_fen || 0)}   lines ${(s.lines || []).length}`, `unacked   ${s.unacked ?? "-"}   oldest ${s.oldest_unacked_s ?? "-"} s`,
    `starts    ${o.daemon.starts}`, ...Object.entries(s.health || {}).map(([p, w]) => `${p.padEnd(9)} ${w}`),
    ...(s.orders || []).map((x) => "order     " + x.order_no + "  " + (x.phase || x.state || "") + "  " + yuan(x.amount_fen || 0)),
    ...(s.parked || []).map((x) => `parked    ${x.order_no}  slip ${x.slip}  ${x.policy}`), ...(s.held || []).map((x) => `held      ${x.slot}  ${yuan(x.total_fen)}`), ...(s.notice ? ["notice    " + s.notice] : [])];
  const text = rows.join("\n");
  if ($("console").textContent !== text) $("console").textContent = text;
  const lines = (o.console || []).join("\n"), serial = $("serial");
  if (serial.textContent !== lines) { serial.textContent = lines; serial.scrollTop = serial.scrollHeight; }
}
$("serial-form").onsubmit = async (e) => { e.preventDefault(); const line = $("serial-line"), typed = line.value; line.value = ""; await post("/console", { line: typed }); };
$("serial-code").onclick = () => post("/console/code", {});
