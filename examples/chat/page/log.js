// What was said in one room, as a list that scrolls. What people wrote is only ever text.

const MOST_ENTRIES = 500;
const SAME_BREATH_S = 300; // messages of one person within this time stand under one name
const NEAR_END_PX = 48;
const ANSWER_S = 10; // how long one's own message may take to come back
const LINK = /(https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]])/;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

// Make an element with a class, and children that are elements or text.
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// A round picture of a name: its first letters on a colour of its own.
export function paint(avatar, name) {
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 9973;
  avatar.style.setProperty("--hue", (hash * 137) % 360); // neighbours get colours far apart
  avatar.textContent = name.split(/[\s_-]+/).slice(0, 2).map((word) => [...word][0] ?? "").join("").toUpperCase();
  return avatar;
}

export class Log {
  element = make("div", "log");
  atEnd = true;
  unseen = 0;
  #pending = new Map();
  #top = 0;
  #changed;

  // `changed` is called when the view has moved or something new has come.
  constructor(label, changed) {
    this.#changed = changed;
    this.element.hidden = true;
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "log");
    this.element.setAttribute("aria-label", label);
    this.element.addEventListener("scroll", () => this.#scrolled());
    new ResizeObserver(() => this.atEnd && this.toEnd()).observe(this.element);
  }

  show() {
    this.element.hidden = false;
    if (this.atEnd) this.toEnd();
    else this.element.scrollTop = this.#top;
  }

  hide() {
    this.element.hidden = true;
  }

  toEnd() {
    this.atEnd = true;
    this.unseen = 0;
    this.element.scrollTop = this.element.scrollHeight;
    this.#changed();
  }

  // Show what somebody said. One's own words replace what stood there waiting for them.
  said({ who, name, text, at, ref }, isMine) {
    const waiting = isMine && this.#pending.get(ref);
    if (waiting) {
      this.#settle(waiting);
      this.#pending.delete(ref);
      waiting.querySelector("time").replaceWith(timeOf(at));
      this.#append(waiting, at);
    } else {
      this.#append(this.#entry(who, name, text, at, isMine), at);
      if (!isMine && !this.atEnd) this.unseen++;
    }
    this.#changed();
  }

  // Show one's own words before they have come back; `again` sends them once more.
  saying({ who, name, text, ref }, again) {
    const at = Date.now() / 1000;
    const entry = this.#entry(who, name, text, at, true);
    entry.classList.add("pending");
    entry.ref = ref;
    entry.again = () => {
      this.#pending.delete(ref);
      entry.remove();
      again();
    };
    entry.timer = setTimeout(() => this.#doubt(entry), ANSWER_S * 1000);
    this.#pending.set(ref, entry);
    this.#append(entry, at);
    this.toEnd();
  }

  // The connection is gone, and with it the answer to what is on its way.
  doubtPending() {
    for (const entry of [...this.#pending.values()]) this.#doubt(entry);
  }

  // A line about the room itself; lines that come together share one.
  notice(text) {
    const last = this.element.lastElementChild;
    const at = Date.now() / 1000;
    if (last?.classList.contains("notice") && at - last.at < 60 && last.textContent.length < 90) {
      last.lastElementChild.before(` · ${text}`);
      this.#keepEnd();
    } else {
      this.#append(make("div", "notice", text, timeOf(at)), at);
    }
  }

  #entry(who, name, text, at, isMine) {
    const body = make("p", "text", ...withLinks(text));
    body.dir = "auto";
    const author = make("b", "author", name);
    author.dir = "auto";
    const avatar = paint(make("span", "avatar"), name);
    avatar.setAttribute("aria-hidden", "true");
    const entry = make("div", isMine ? "said mine" : "said", avatar, make("div", "bubble", author, body, timeOf(at)));
    entry.who = who;
    entry.style.setProperty("--hue", avatar.style.getPropertyValue("--hue"));
    return entry;
  }

  #append(entry, at) {
    entry.at = at;
    const last = this.element.lastElementChild;
    const isSameDay = last && new Date(last.at * 1000).toDateString() === new Date(at * 1000).toDateString();
    if (last && !isSameDay) this.element.append(make("div", "notice", calendar.format(at * 1000)));
    if (entry !== last) this.element.append(entry);
    const before = entry.previousElementSibling;
    const goesOn = before?.who === entry.who && entry.who && at - before.at < SAME_BREATH_S;
    entry.classList.toggle("goes-on", Boolean(goesOn));
    while (this.atEnd && this.element.children.length > MOST_ENTRIES) this.element.firstElementChild.remove();
    this.#keepEnd();
  }

  #keepEnd() {
    if (this.atEnd && !this.element.hidden) this.element.scrollTop = this.element.scrollHeight;
  }

  #settle(entry) {
    clearTimeout(entry.timer);
    entry.classList.remove("pending", "doubtful");
    entry.querySelector(".again")?.remove();
  }

  // It stays pending: the answer may only be late.
  #doubt(entry) {
    this.#settle(entry);
    const button = make("button", "again", "May not have arrived. Send again");
    button.type = "button";
    button.onclick = entry.again;
    entry.querySelector(".bubble").append(button);
    entry.classList.add("doubtful");
    this.#keepEnd();
  }

  #scrolled() {
    if (this.element.hidden) return;
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    this.#top = scrollTop;
    this.atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (this.atEnd) this.unseen = 0;
    this.#changed();
  }
}

function timeOf(at) {
  const time = make("time", "", clock.format(at * 1000));
  time.dateTime = new Date(at * 1000).toISOString();
  time.title = full.format(at * 1000);
  return time;
}

// Split text into strings and links to web addresses.
function withLinks(text) {
  return text.split(LINK).map((part, index) => {
    if (index % 2 === 0) return part;
    const link = make("a", "", part);
    link.href = part;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    return link;
  });
}
