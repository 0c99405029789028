// Requests status.json every two seconds and shows it; counts the token's time down in between. Only text that differs is
// replaced, so that a selection and a screen reader's place survive an update. Without a response, the last status is
// marked as outdated until there is one again.
"use strict";

const element = (id) => document.getElementById(id);
const marks = { passed: ["✔", "good"], failed: ["✘", "bad"], not_applicable: ["·", ""] };
let updated = null; // time of the latest status; null while the status shown is outdated
let shown = 0; // the same on this browser's monotonic clock
let expires = null; // the token's expiry, on that clock
let longest = 0; // seconds left when this token was first seen

function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function setText(node, text, className = node.className) {
  if (node.textContent !== text) node.textContent = text;
  if (node.className !== className) node.className = className;
}

function resize(list, length, make) {
  while (list.children.length > length) list.lastElementChild.remove();
  while (list.children.length < length) list.append(make(list.children.length));
}

function pairs(list, pairs) {
  const texts = pairs.flat();
  resize(list, texts.length, (index) => document.createElement(index % 2 ? "dd" : "dt"));
  texts.forEach((text, index) => setText(list.children[index], text));
}

function checks(list, checks) {
  resize(list, checks.length, () => {
    const item = document.createElement("li");
    item.append(document.createElement("span"), document.createElement("span"));
    return item;
  });
  checks.forEach(([name, { status, detail }], index) => {
    const [found, why] = list.children[index].children;
    const [mark, className] = marks[status];
    setText(found, `${mark} ${name}`, className);
    setText(why, `: ${detail}`);
  });
}

function show(status) {
  setText(element("state"), status.ready ? "Ready" : "Not ready", status.ready ? "good" : "bad");
  document.title = `${status.ready ? "✔" : "✘"} entra-redis`;
  checks(element("checks"), Object.entries(status.checks));
  element("token").hidden = status.tokenExpiresInSeconds === null;
  if (status.tokenExpiresInSeconds !== null) {
    const left = status.tokenExpiresInSeconds;
    const before = expires === null ? 0 : (expires - performance.now()) / 1000;
    if (left > before + 1.5) longest = left;
    expires = performance.now() + left * 1000;
  }
  pairs(element("replica"), [
    ["connections", `${status.connectionsOpen} of ${status.connectionsWanted} open`],
    ["visits", String(status.visits)],
    ["uptime", duration(status.uptimeSeconds)],
    ["version", status.version],
  ]);
  element("identity").hidden = !status.credential && !status.nodes;
  pairs(element("identity-list"), [
    ...(status.credential ? [["credential", status.credential]] : []),
    ...(status.objectId ? [["object id", status.objectId]] : []),
    ...(status.nodes || []).map((node) => ["node", `${node.address}, ${node.connectionsOpen} open`]),
  ]);
  [updated, shown] = [new Date(), performance.now()];
  element("since").hidden = true;
  element("found").hidden = false;
  element("found").className = "";
  count();
}

function outdated(why) {
  setText(element("state"), why, "bad");
  document.title = `? entra-redis: ${why}`;
  if (updated === null) return;
  count(shown);
  // With the date: a page may be left open for days.
  setText(element("since"), `Outdated: last updated at ${updated.toLocaleString()}.`);
  element("since").hidden = false;
  element("found").className = "outdated";
  updated = null;
}

function count(now = performance.now()) {
  if (expires === null || updated === null) return;
  const left = (expires - now) / 1000;
  setText(element("token-left"), left > 0 ? `expires in ${duration(left)}` : "expired");
  element("token-meter").value = longest > 0 ? Math.min(1, Math.max(0, left / longest)) : 0;
}

async function update() {
  try {
    const response = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    // A proxy's own error page is not JSON.
    const isJson = response.headers.get("content-type")?.includes("json");
    const body = isJson ? await response.json() : {};
    if (response.ok && body.checks) show(body);
    else outdated(`No status: HTTP ${response.status} ${body.title ?? response.statusText}`.trimEnd());
  } catch {
    outdated("No response from this replica");
  }
  setTimeout(update, 2000);
}

update();
setInterval(count, 500);
