// The stream of the arbiter: follows it, says whether it is there, and comes back to it.

const SILENCE_MS = 12_000;
const AGAIN_MS = 1_000;
const MOST_AGAIN_MS = 10_000;
// A page that nobody sees takes nothing after so long.
const HIDDEN_MS = 60_000;
const FEED = new URL("feed", import.meta.url);
const REFUSALS = {
  403: "The arbiter shows itself by localhost or a loopback address only: open this page by one of these.",
  503: "As many pages watch as may; close another one.",
};

/** Why there is no stream; a browser does not tell. */
async function refusal() {
  try {
    return REFUSALS[(await fetch(FEED, { method: "HEAD" })).status];
  } catch {
    return undefined;
  }
}

export class Feed {
  /** onNews(news), onBeat(now): what comes. onLink(kind, why): live, wait (not there yet or again) or away. */
  constructor({ onNews, onBeat, onLink }) {
    this.onNews = onNews;
    this.onBeat = onBeat;
    this.onLink = onLink;
    this.again = AGAIN_MS;
    document.addEventListener("visibilitychange", () => this.seen(!document.hidden));
  }

  open() {
    this.close();
    const source = new EventSource(FEED);
    this.source = source;
    source.addEventListener("news", (event) => {
      this.heard();
      this.again = AGAIN_MS;
      this.why = undefined;
      this.onNews(JSON.parse(event.data));
      this.onLink("live");
    });
    source.addEventListener("beat", (event) => {
      this.heard();
      this.onBeat(Number(event.data));
    });
    source.addEventListener("error", () => this.lost());
    this.heard();
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.silence);
    clearTimeout(this.retry);
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lost(), SILENCE_MS);
  }

  // By ourselves, because a browser gives up where it is answered with an error.
  async lost() {
    this.close();
    this.onLink("away", this.why);
    this.retry = setTimeout(() => this.open(), this.again);
    this.again = Math.min(MOST_AGAIN_MS, this.again * 1.5);
    this.why = await refusal();
    if (this.source === null) this.onLink("away", this.why);
  }

  seen(visible) {
    clearTimeout(this.hiding);
    if (!visible) {
      this.hiding = setTimeout(() => {
        this.close();
        this.onLink("wait");
      }, HIDDEN_MS);
    } else if (this.source === null) {
      this.open();
    }
  }
}
