// What an operator can do. (Read only so far.)

import { el } from "./dom.js";

export class Actions {
  constructor(store, button) {
    this.store = store;
    button.hidden = true;
  }

  drainButton() {
    return { node: el("span", { hidden: true }), update() {} };
  }

  revokeButton() {
    return { node: el("span", { hidden: true }), update() {} };
  }
}
