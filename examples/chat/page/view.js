// What is on the screen besides the messages: rooms, people, the connection.

import { make, paint } from "./log.js";

const $ = (id) => document.getElementById(id);

const STATES = {
  closed: ["", ""],
  connecting: ["Connecting…", "connecting"],
  open: ["", "connected"],
  waiting: ["The connection is lost.", "reconnecting"],
};

export function renderPage({ rooms, current, me, myName, connection, server }) {
  for (const each of rooms.values()) renderRoom(each, each === current);
  const count = renderPeople(current, me);
  const unread = [...rooms.values()].reduce((sum, each) => sum + each.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${current.name} · Rooms`;
  $("elsewhere").hidden = !unread;
  $("room-title").textContent = current.name;
  $("head-count").textContent = connection.state === "open" && count ? `${count} here` : "";
  $("text").placeholder = `Write to ${current.name}`;
  $("send").disabled = connection.state !== "open";
  $("my-name").textContent = myName;
  paint($("my-avatar"), myName);
  renderNewer(current.log);
  renderStatus(connection, me, server);
}

export function renderNewer({ atEnd, unseen }) {
  $("newer").hidden = atEnd;
  $("newer").textContent = unseen ? `↓ ${unseen} new` : "↓ Newest";
}

export function renderStatus({ state, until }, me, { process }) {
  const [text, word] = STATES[state];
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  // Written only when it changes: a screen reader says it each time. The countdown is silent.
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
  $("countdown").textContent = state === "waiting" ? ` Trying again in ${seconds} s.` : "";
  $("status").hidden = !text || (state === "connecting" && !me);
  $("retry").hidden = state !== "waiting";
  $("my-state").textContent = state === "open" && process ? `on process ${process}` : word;
  document.body.dataset.state = state;
}

// A line in the list of rooms; it stays the same element, so that it keeps the focus.
export function roomLine(name, open) {
  const button = make("button", "", make("span", "hash", "#"), make("span", "label", name), make("span", "badge"));
  button.type = "button";
  button.onclick = open;
  return make("li", "", button);
}

function renderRoom({ line, isOpen, unread }, isCurrent) {
  const button = line.firstElementChild;
  if (isCurrent) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  button.classList.toggle("joined", isOpen);
  button.lastElementChild.textContent = unread ? String(Math.min(unread, 99)) : "";
}

// Show who is there, oneself first, and return how many there are.
function renderPeople({ people, members }, me) {
  const known = [...people].map(([who, name]) => ({ name, isMe: who === me }));
  known.sort((a, b) => b.isMe - a.isMe || a.name.localeCompare(b.name, undefined, { numeric: true }));
  const unnamed = Math.max(0, members - known.length);
  const lines = known.map(personLine);
  if (unnamed) lines.push(make("li", "more", `and ${unnamed} more`));
  $("people").replaceChildren(...lines);
  return known.length + unnamed;
}

function personLine({ name, isMe }) {
  const label = make("span", "label", name);
  label.dir = "auto";
  return make("li", "", paint(make("span", "avatar"), name), label, isMe ? make("small", "", "you") : "");
}
