/** Where this library says what a holder should know: a lost lease, a broken line, a release that failed. */
export interface Logger {
  readonly debug: (message: string) => void;
  readonly info: (message: string) => void;
  readonly warn: (message: string) => void;
  readonly error: (message: string) => void;
}

const say = (message: string) => process.stderr.write(`gpu-arbiter: ${message}\n`);

/** Warnings and errors on stderr, nothing else. */
export const stderrLogger: Logger = { debug: () => {}, info: () => {}, warn: say, error: say };
