// What an operator can do: drain and resume GPUs, revoke leases. Law: the token stays in this tab, and is forgotten with it.

import { attribute, el, show, text } from "./dom.js";
import { clean, count } from "./words.js";

const TOKEN = "gpu-arbiter-token";
const TOAST_MS = 9_000;
const PATIENCE_MS = 20_000;

export class Actions {
  constructor(store, button) {
    this.store = store;
    this.button = button;
    this.toasts = el("div", { class: "toasts", role: "status", "aria-live": "polite" });
    document.body.append(this.toasts);
    button.addEventListener("click", () => (this.token ? this.signOut() : this.signIn()));
    this.#shown();
  }

  get token() {
    return sessionStorage.getItem(TOKEN);
  }

  signOut() {
    sessionStorage.removeItem(TOKEN);
    this.#shown();
    this.#toast("The token is forgotten.");
  }

  /** Asks for the token; then goes on with what was to be done. */
  signIn(then = null, problem = "") {
    const token = el("input", {
      type: "password",
      autocomplete: "off",
      required: true,
      name: "token",
      maxlength: 4096,
    });
    dialog({
      title: "Admin token",
      about:
        "Drain, resume and revoke need it. On the arbiter's machine, this command prints it: gpu-arbiterd token, with the same options as gpu-arbiterd serve. It is kept in this tab alone.",
      fields: [el("label", {}, "Token", token)],
      problem,
      go: "Sign in",
      act: async () => {
        const done = await ask("sign-in", {}, token.value.trim());
        sessionStorage.setItem(TOKEN, token.value.trim());
        this.#shown();
        if (then) then();
        else this.#toast(done);
      },
    });
  }

  drainButton(key) {
    const node = el("button", { type: "button", class: "quiet small" });
    let gpu = null;
    node.addEventListener("click", () => (gpu.drained ? this.#resume(gpu) : this.#drain(gpu)));
    return {
      node,
      update: (next) => {
        gpu = next;
        text(node, gpu.drained ? "Resume" : "Drain");
        attribute(node, "aria-label", `${gpu.drained ? "Resume" : "Drain"} ${key}`);
      },
    };
  }

  revokeButton() {
    const node = el("button", { type: "button", class: "quiet small" }, "Revoke");
    let lease = null;
    node.addEventListener("click", () => this.#revoke(lease));
    return {
      node,
      update: (next) => {
        lease = next;
        attribute(node, "aria-label", `Revoke the lease of ${clean(lease.client, 60)}`);
      },
    };
  }

  #drain(gpu) {
    const reason = el("input", { maxlength: 1024, name: "reason", placeholder: "new driver" });
    const grace = el("input", {
      type: "number",
      min: 0,
      max: 86400,
      step: "any",
      name: "grace",
      placeholder: "leave them alone",
    });
    const held = this.store.leasesOn(gpu.key).length;
    this.#dialog({
      title: `Drain ${gpu.key}?`,
      about: `Nothing new is granted on it until it is resumed. ${held ? `${count(held, "lease is", "leases are")} on it.` : "Nobody holds it."}`,
      fields: [
        el("label", {}, "Reason, for those who wait and for the history", reason),
        el("label", {}, "Revoke its leases after so many seconds; empty: leave them alone", grace),
      ],
      go: "Drain",
      name: "drain",
      said: () => ({
        gpus: [gpu.key],
        reason: reason.value,
        grace_seconds: grace.value === "" ? null : Number(grace.value),
      }),
    });
  }

  #resume(gpu) {
    this.#dialog({
      title: `Resume ${gpu.key}?`,
      about: `It goes into service again, and the yield requests that came with the drain are taken back.${gpu.why ? ` It was drained for: ${clean(gpu.why)}` : ""}`,
      fields: [],
      go: "Resume",
      name: "resume",
      said: () => ({ gpus: [gpu.key] }),
    });
  }

  #revoke(lease) {
    const reason = el("input", { maxlength: 1024, name: "reason" });
    const grace = el("input", { type: "number", min: 0, max: 86400, step: "any", name: "grace", value: 10 });
    this.#dialog({
      title: "Revoke this lease?",
      about: `${clean(lease.task)} of ${clean(lease.client)} on ${lease.gpus.map((grant) => grant.key).join(", ")}. The arbiter cannot stop a process: a holder that ignores it still runs.`,
      fields: [
        el("label", {}, "Reason, for its holder and for the history", reason),
        el("label", {}, "Seconds to yield; 0 ends it at once", grace),
      ],
      go: "Revoke",
      danger: true,
      name: "revoke",
      said: () => ({ lease_id: lease.id, reason: reason.value, grace_seconds: Number(grace.value) }),
    });
  }

  /** Asks whether it shall be done, and does it: with the token, which is asked for where it is missing or wrong. */
  #dialog(options) {
    const again = (problem = "") => this.signIn(() => this.#dialog(options), problem);
    if (!this.token) {
      again();
      return;
    }
    dialog({
      ...options,
      act: async () => {
        try {
          this.#toast(await ask(options.name, options.said(), this.token));
        } catch (error) {
          if (!(error instanceof TokenError)) throw error;
          sessionStorage.removeItem(TOKEN);
          this.#shown();
          again(error.message);
        }
      },
    });
  }

  #shown() {
    text(this.button, this.token ? "Sign out" : "Sign in");
  }

  #toast(words) {
    const node = el("p", { class: "toast" }, words);
    this.toasts.append(node);
    setTimeout(() => node.remove(), TOAST_MS);
  }
}

class TokenError extends Error {}

/** Has it done; returns what came of it in words. */
async function ask(name, said, token) {
  // What a header cannot hold is no token, and would look as if nobody answered.
  if (!/^[\x20-\x7e]+$/.test(token))
    throw new TokenError("this is not the admin token: it has letters that no token has");
  let answer;
  try {
    answer = await fetch(new URL(`api/${name}`, import.meta.url), {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify(said),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch {
    throw new Error("The arbiter does not answer. It is not known whether it was done: look before you try again.");
  }
  const { message, error } = await answer.json().catch(() => ({}));
  if (answer.ok) return message;
  const why = error ?? `the arbiter answered ${answer.status}`;
  throw answer.status === 401 || answer.status === 403 ? new TokenError(why) : new Error(why);
}

/** A dialog with a form; `act` does what it is for, and what it throws is shown. */
function dialog({ title, about, fields, go, danger = false, problem = "", act }) {
  const error = el("p", { class: "error", role: "alert" }, problem);
  show(error, Boolean(problem));
  const cancel = el("button", { type: "button" }, "Cancel");
  const submit = el("button", { type: "submit", class: danger ? "danger" : "main" }, go);
  const form = el(
    "form",
    { autocomplete: "off" },
    el("h2", { id: "dialog-title" }, title),
    el("p", { class: "dim" }, about),
    ...fields,
    error,
    el("div", { class: "row" }, cancel, submit),
  );
  const node = el("dialog", { "aria-labelledby": "dialog-title" }, form);
  const close = () => node.close();
  node.addEventListener("close", () => node.remove());
  cancel.addEventListener("click", close);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await act();
      close();
    } catch (failure) {
      text(error, failure.message);
      show(error, true);
    } finally {
      submit.disabled = false;
    }
  });
  document.body.append(node);
  node.showModal();
}
