// Asks status.json every two seconds and shows it; counts the token down in between. Only text that has changed is
// changed: a selection, or a screen reader's place, outlives the next answer. What is no longer known to be so is
// marked as old until there is an answer again.
"use strict";

const element = (id) => document.getElementById(id);
const marks = { passed: ["✔", "good"], failed: ["✘", "bad"], not_applicable: ["·", ""] };
let answered = null; // when the latest status came; null while what is shown is old
let shown = 0; // the same on this browser's monotonic clock
let ends = null; // of the token, on that clock
let longest = 0; // seconds left when it was first seen, or came anew

function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function say(node, text, className = node.className) {
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
  texts.forEach((text, index) => say(list.children[index], text));
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
    say(found, `${mark} ${name}`, className);
    say(why, `: ${detail}`);
  });
}

function show(status) {
  say(element("state"), status.ready ? "All is well" : "Not ready", status.ready ? "good" : "bad");
  document.title = `${status.ready ? "✔" : "✘"} entra-redis`;
  checks(element("checks"), Object.entries(status.checks));
  element("token").hidden = status.tokenExpiresInSeconds === null;
  if (status.tokenExpiresInSeconds !== null) {
    const left = status.tokenExpiresInSeconds;
    const before = ends === null ? 0 : (ends - performance.now()) / 1000;
    if (left > before + 1.5) longest = left;
    ends = performance.now() + left * 1000;
  }
  pairs(element("replica"), [
    ["connections", `${status.connectionsOpen} of ${status.connectionsWanted} open`],
    ["visits", String(status.visits)],
    ["up for", duration(status.uptimeSeconds)],
    ["version", status.version],
  ]);
  element("identity").hidden = !status.credential && !status.nodes;
  pairs(element("identity-list"), [
    ...(status.credential ? [["credential", status.credential]] : []),
    ...(status.objectId ? [["object id", status.objectId]] : []),
    ...(status.nodes || []).map((node) => ["node", `${node.address}, ${node.connectionsOpen} open`]),
  ]);
  [answered, shown] = [new Date(), performance.now()];
  element("since").hidden = true;
  element("found").hidden = false;
  element("found").className = "";
  count();
}

function old(why) {
  say(element("state"), why, "bad");
  document.title = `? entra-redis: ${why}`;
  if (answered === null) return;
  count(shown);
  // With the date: a page may be left open for days.
  say(element("since"), `What is below is old: it was so at ${answered.toLocaleString()}.`);
  element("since").hidden = false;
  element("found").className = "old";
  answered = null;
}

function count(now = performance.now()) {
  if (ends === null || answered === null) return;
  const left = (ends - now) / 1000;
  say(element("token-left"), left > 0 ? `ends in ${duration(left)}` : "has ended");
  element("token-meter").value = longest > 0 ? Math.min(1, Math.max(0, left / longest)) : 0;
}

async function ask() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    // A proxy's own error page is no JSON.
    const isJson = answer.headers.get("content-type")?.includes("json");
    const body = isJson ? await answer.json() : {};
    if (answer.ok && body.checks) show(body);
    else old(`No status, but ${answer.status} ${body.title ?? answer.statusText}`.trimEnd());
  } catch {
    old("No answer from this replica");
  }
  setTimeout(ask, 2000);
}

ask();
setInterval(count, 500);
