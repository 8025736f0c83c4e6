// The stream of the arbiter: follows it, says whether it is there, and comes back to it.

const SILENCE_MS = 12_000;
const AGAIN_MS = 1_000;
const MOST_AGAIN_MS = 10_000;
// A page that nobody sees takes nothing after so long.
const HIDDEN_MS = 60_000;

export class Feed {
  /** onNews(news), onBeat(now): what comes. onLink(kind): live, wait (not there yet or again) or away. */
  constructor({ onNews, onBeat, onLink }) {
    this.onNews = onNews;
    this.onBeat = onBeat;
    this.onLink = onLink;
    this.again = AGAIN_MS;
    document.addEventListener("visibilitychange", () => this.seen(!document.hidden));
  }

  open() {
    this.close();
    const source = new EventSource(new URL("feed", import.meta.url));
    this.source = source;
    source.addEventListener("news", (event) => {
      this.heard();
      this.again = AGAIN_MS;
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
  lost() {
    this.close();
    this.onLink("away");
    this.retry = setTimeout(() => this.open(), this.again);
    this.again = Math.min(MOST_AGAIN_MS, this.again * 1.5);
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
