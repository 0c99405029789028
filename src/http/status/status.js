// Asks status.json every two seconds and shows it; counts the token down in between.
"use strict";

const element = (id) => document.getElementById(id);
const marks = { passed: "✔", failed: "✘", not_applicable: "·" };
let ends = null; // of the token, on this browser's monotonic clock
let longest = 0; // seconds left when it was first seen, or came anew

function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// A screen reader is told of changes alone.
function say(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  node.className = className;
}

function list(node, pairs) {
  node.replaceChildren(...pairs.flatMap(([name, value]) => {
    const [term, definition] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    definition.textContent = value;
    return [term, definition];
  }));
}

function show(status) {
  say(element("state"), status.ready ? "All is well" : "Not ready", status.ready ? "good" : "bad");
  document.title = `${status.ready ? "✔" : "✘"} entra-redis`;
  element("checks").replaceChildren(...Object.entries(status.checks).map(([name, check]) => {
    const item = document.createElement("li");
    const mark = document.createElement("span");
    mark.textContent = `${marks[check.status]} ${name}`;
    mark.className = check.status === "failed" ? "bad" : "good";
    item.append(mark, `: ${check.detail}`);
    return item;
  }));
  element("token").hidden = status.tokenExpiresInSeconds === null;
  if (status.tokenExpiresInSeconds !== null) {
    const left = status.tokenExpiresInSeconds;
    const before = ends === null ? 0 : (ends - performance.now()) / 1000;
    if (left > before + 1.5) longest = left;
    ends = performance.now() + left * 1000;
  }
  list(element("replica"), [
    ["connections", `${status.connectionsOpen} of ${status.connectionsWanted} open`],
    ["visits", String(status.visits)],
    ["up for", duration(status.uptimeSeconds)],
    ["version", status.version],
  ]);
  element("identity").hidden = !status.credential && !status.nodes;
  list(element("identity-list"), [
    ...(status.credential ? [["credential", status.credential]] : []),
    ...(status.objectId ? [["object id", status.objectId]] : []),
    ...(status.nodes || []).map((node) => ["node", `${node.address}, ${node.connectionsOpen} open`]),
  ]);
}

function count() {
  if (ends === null) return;
  const left = (ends - performance.now()) / 1000;
  element("token-left").textContent = left > 0 ? `ends in ${duration(left)}` : "has ended";
  element("token-meter").value = longest > 0 ? Math.min(1, Math.max(0, left / longest)) : 0;
}

async function ask() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    show(await answer.json());
  } catch {
    say(element("state"), "No answer from this replica", "bad");
  }
  setTimeout(ask, 2000);
}

ask();
setInterval(count, 500);
