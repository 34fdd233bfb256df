// The page: which rooms there are, who is in them, and what is on the screen.

import { Connection } from "./connection.js";
import { Log } from "./log.js";
import { renderNewer, renderPage, renderStatus, roomLine } from "./view.js";

const ROOMS = ["lobby", "coffee", "ideas"]; // those one starts with; a link or the form opens others
const ROLL_CALL_S = 15; // between two looks at who is in the rooms
const MOST_TRIES = 9; // to be served by another process than the window before
const NAMES = ["Quiet Otter", "Swift Heron", "Brave Wren", "Merry Fox", "Calm Badger", "Bright Finch"];

const $ = (id) => document.getElementById(id);
const render = () => current && renderPage({ rooms, current, me, myName, connection, server });
const connection = new Connection();
const rooms = new Map(); // name → room
let me = ""; // what the server calls this connection
let myName = "";
let server = {}; // which process it is, of how many
let tries = MOST_TRIES;
let current;
let lastRef = 0;

function room(name) {
  if (!rooms.has(name)) {
    const log = new Log(`Messages in ${name}`, () => current?.log === log && renderNewer(log));
    rooms.set(name, {
      name,
      log,
      line: roomLine(name, () => open(name)),
      people: new Map(), // who → name
      members: 0, // how many the layer counts; some may not have said their names
      isOpen: false,
      isBack: false, // was here before the connection was lost
      unread: 0,
      draft: "",
    });
    $("logs").append(log.element);
    $("rooms").append(rooms.get(name).line);
  }
  return rooms.get(name);
}

// ---- what the server says

const heard = {
  welcome({ who, name, process, processes }) {
    // Two windows shall show that messages cross from one process to the other.
    if (processes > 1 && String(process) === localStorage.getItem("chat.process") && --tries > 0) {
      connection.open(name);
      return;
    }
    tries = 0;
    localStorage.setItem("chat.process", process);
    server = { process, processes };
    me = who;
    myName = name;
    for (const each of rooms.values()) {
      each.people.clear();
      each.members = 0;
      if (each.isOpen) connection.send({ type: "join", room: each.name });
    }
  },
  joined(frame) {
    const where = room(frame.room);
    const isNew = !where.people.has(frame.who);
    meet(frame);
    if (frame.who === me) {
      if (where.isBack) where.log.notice("You are back. What was said in between is not here");
      where.isBack = true;
      callRoll(where);
    } else if (isNew) {
      where.members++;
      where.log.notice(`${frame.name} joined`);
    }
  },
  present: meet,
  left(frame) {
    const where = room(frame.room);
    if (frame.who === me || !where.people.delete(frame.who)) return;
    where.members--;
    where.log.notice(`${frame.name} left`);
  },
  // The layer's own list of members is the truth; names come from what the members said.
  members({ room: name, members }) {
    const { people } = room(name);
    for (const who of people.keys()) if (!members.includes(who)) people.delete(who);
    room(name).members = members.length;
  },
  said(frame) {
    const isMine = frame.who === me;
    const where = room(frame.room);
    where.log.said(frame, isMine);
    if (!isMine && (where !== current || document.hidden)) where.unread++;
  },
  error: ({ detail }) => current.log.notice(`Not done: ${detail}`),
};

function meet({ room: name, who, name: person }) {
  room(name).people.set(who, person);
}

function callRoll({ name }) {
  connection.ask({ type: "who", room: name });
}

connection.addEventListener("frame", ({ detail: frame }) => {
  if (frame.room && !rooms.get(frame.room)?.isOpen) return; // a straggler of a room left behind
  heard[frame.type]?.(frame);
  render();
});

connection.addEventListener("state", () => {
  if (connection.state !== "open") for (const each of rooms.values()) each.log.doubtPending();
  render();
});

setInterval(() => {
  if (!document.hidden) for (const each of rooms.values()) if (each.isOpen) callRoll(each);
}, ROLL_CALL_S * 1000);
setInterval(() => renderStatus(connection, me, server), 500);

// ---- what the person does

function open(name) {
  const next = room(name);
  if (current) {
    current.draft = $("text").value;
    current.log.hide();
  }
  if (!next.isOpen) {
    next.isOpen = true;
    connection.send({ type: "join", room: name });
  }
  current = next;
  current.unread = 0;
  current.log.show();
  $("text").value = current.draft;
  fitText();
  showSide(false);
  if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
  render();
  if (matchMedia("(pointer: fine)").matches) $("text").focus();
}

function leave() {
  const left = current;
  Object.assign(left, { isOpen: false, isBack: false, members: 0 });
  left.people.clear();
  connection.send({ type: "leave", room: left.name });
  left.log.notice("You left");
  open([...rooms.values()].find((each) => each.isOpen)?.name ?? (left.name === "lobby" ? "coffee" : "lobby"));
}

function say(where, text) {
  const frame = { type: "say", room: where.name, text, ref: ++lastRef };
  if (!connection.send(frame)) return false;
  where.log.saying({ ...frame, who: me, name: myName }, () => say(where, text) || where.log.notice(`Not sent: ${text}`));
  return true;
}

function roomNamed(text) {
  return text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 32);
}

function goTo(step) {
  const names = [...rooms.keys()];
  open(names[(names.indexOf(current.name) + step + names.length) % names.length]);
}

function fitText() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
}

function showSide(isShown) {
  document.body.classList.toggle("side-open", isShown);
  if (isShown) $("close-side").focus();
}

$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && say(current, text)) {
    $("text").value = "";
    fitText();
  }
  $("text").focus();
});
$("text").addEventListener("input", fitText);
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("write").requestSubmit();
});
$("new-room").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = roomNamed($("new-room-name").value);
  if (name) open(name);
  $("new-room-name").value = "";
});
$("newer").addEventListener("click", () => current.log.toEnd());
$("leave").addEventListener("click", leave);
$("retry").addEventListener("click", () => connection.retry());
$("open-side").addEventListener("click", () => showSide(true));
$("close-side").addEventListener("click", () => showSide(false));
document.querySelector("main").addEventListener("pointerdown", (event) => event.target.closest("#open-side") || showSide(false));
$("rename").addEventListener("click", askName);
addEventListener("hashchange", () => open(roomNamed(location.hash) || "lobby"));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && current) {
    current.unread = 0;
    render();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") showSide(false);
  if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  goTo(event.key === "ArrowUp" ? -1 : 1);
});

// ---- the beginning

function askName() {
  $("name").value = myName || localStorage.getItem("chat.name") || NAMES[Math.floor(Math.random() * NAMES.length)];
  $("hello").showModal();
  $("name").select();
}

function come(name) {
  sessionStorage.setItem("chat.name", name); // this window's, so that two windows can be two people
  localStorage.setItem("chat.name", name);
  for (const each of rooms.values()) each.isBack = false;
  myName = name;
  connection.open(name);
  if (!current) open(roomNamed(location.hash) || "lobby");
}

$("hello").addEventListener("close", () => {
  const name = $("name").value.trim();
  if (!name) return askName();
  if (name !== myName || connection.state === "closed") come(name);
});
$("hello").addEventListener("cancel", (event) => connection.state === "closed" && event.preventDefault());

ROOMS.forEach(room);
if (sessionStorage.getItem("chat.name")) come(sessionStorage.getItem("chat.name"));
else askName();
