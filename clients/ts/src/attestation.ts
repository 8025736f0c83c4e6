/**
 * A proof of who this process is, from the socket beside the arbiter's own (its path and ".attest").
 *
 * Law: where there is none, or it does not answer within a second, there is no proof, and that is no error.
 */
import { connect } from "node:net";
import type { Place } from "./settings.js";
import { timing } from "./timing.js";

const MAX_CHARACTERS = 4_096;

/** One line of the attestation socket; empty when it gives none. */
export function readAttestation(place: Place): Promise<string> {
  if (!("path" in place)) {
    return Promise.resolve("");
  }
  return new Promise((resolve) => {
    let said = "";
    const socket = connect({ path: `${place.path}.attest` });
    const timer = setTimeout(() => done(""), timing.attestationMs);
    const done = (line: string) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(line);
    };
    socket.setEncoding("latin1");
    socket.on("error", () => done(""));
    socket.on("close", () => done(said.split("\n")[0]?.trim() ?? ""));
    socket.on("data", (text: string) => {
      said += text;
      if (said.length > MAX_CHARACTERS) {
        done("");
      }
    });
  });
}
