// One WebSocket that comes back by itself. Events: "state" and "frame".

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 15;
const SILENCE_S = 10; // an open socket that leaves a question unanswered for so long is dead

export class Connection extends EventTarget {
  #socket = null;
  #name = "";
  #attempt = 0;
  #retry = 0;
  #deadline = 0;
  state = "closed"; // "closed", "connecting", "open" or "waiting"
  until = 0; // while waiting: when the next attempt comes, in ms since the epoch

  constructor() {
    super();
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  // Connect, or connect again, under this name.
  open(name) {
    this.#name = name;
    this.#attempt = 0;
    this.#connect();
  }

  // Do not wait any longer.
  retry() {
    if (this.state === "waiting") this.#connect();
  }

  // Send one frame; false if there is no connection to send it on.
  send(frame) {
    if (this.state !== "open") return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  // Send a question; if nothing at all is heard afterwards, the connection counts as lost.
  ask(frame) {
    if (this.send(frame) && !this.#deadline) {
      this.#deadline = setTimeout(() => this.#lost(), SILENCE_S * 1000);
    }
  }

  #connect() {
    this.#drop();
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    url.search = new URLSearchParams({ name: this.#name });
    const socket = (this.#socket = new WebSocket(url));
    socket.onclose = () => this.#lost();
    socket.onmessage = (event) => this.#heard(JSON.parse(event.data));
    this.#enter("connecting");
  }

  #heard(frame) {
    clearTimeout(this.#deadline);
    this.#deadline = 0;
    if (frame.type === "welcome") {
      this.#attempt = 0;
      this.#enter("open");
    }
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  #lost() {
    this.#drop();
    // Half of the wait is chance, so that a restarted server is not met by all at once.
    const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this.#attempt++);
    const pause = wait * (0.5 + Math.random() / 2) * 1000;
    this.until = Date.now() + pause;
    this.#retry = setTimeout(() => this.#connect(), pause);
    this.#enter("waiting");
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#deadline);
    this.#deadline = 0;
    if (!this.#socket) return;
    this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket.close();
    this.#socket = null;
  }

  #enter(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}
