/**
 * Ports that stay one's own.
 *
 * Law: none of those that the system gives to outgoing connections (from 32768 on): whoever listens here again after a
 * while finds the port free.
 */
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/** A port of loopback that nobody listens on. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_768);
    const server = createServer();
    server.listen(port, "127.0.0.1");
    const free = await once(server, "listening").then(
      () => true,
      () => false,
    );
    server.close();
    if (free) {
      return port;
    }
  }
}
