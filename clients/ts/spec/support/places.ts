/** Where things are. */
import { resolve } from "node:path";

/** clients/ts */
export const PACKAGE = resolve(import.meta.dirname, "../..");
/** The repository. */
export const ROOT = resolve(PACKAGE, "../..");
