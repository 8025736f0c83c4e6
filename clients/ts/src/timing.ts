/**
 * How long this library waits for what, in milliseconds.
 *
 * Law: every wait has a bound, and it is here. Specs shorten them; programs cannot.
 */
export const timing = {
  /** A call that has one answer. */
  callMs: 10_000,
  /** Until a connection stands. */
  connectMs: 2_000,
  /** Until the attestation socket has answered. */
  attestationMs: 1_000,
  /**
   * A peer that froze, or a line that was cut without a word, is noticed within two seconds, as the arbiter does on
   * its side: early enough to join again before it gives up a lease whose stream it has lost.
   */
  pingIntervalMs: 1_000,
  pingTimeoutMs: 1_000,
  /** How long a request asks again while the arbiter is away, where its maxWait does not say; a restart takes less. */
  outageMs: 10_000,
  /** However short its maxWait: that bounds the wait for a GPU, and what may have been granted is worth a moment more. */
  leastOutageMs: 2_000,
  firstPauseMs: 100,
  longestPauseMs: 500,
  withdrawMs: 2_000,
  releaseMs: 5_000,
  /** A lease presumed lost is given back for the case that it is not; that is not worth waiting for. */
  lostReleaseMs: 1_000,
  /** What a report about work on the CPU may cost; it is only for statistics. */
  reportMs: 1_000,
  /** A callback that takes longer does not keep the next one from being called. */
  callbackOrderMs: 1_000,
  /**
   * How long the arbiter keeps a lease whose stream broke (the policy's disconnect_grace, unless an operator changed
   * it) when it has no ttl.
   */
  disconnectGraceMs: 5_000,
};

/** A ttl survives two lost renewals. */
export const RENEWALS_PER_TTL = 3;
