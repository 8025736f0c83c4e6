/** What comes of asking for a lease, by `kind`. */
import type { FallbackToCpu, Skipped } from "./errors.js";
import type { Lease } from "./lease.js";

/** Of `acquire`: a lease that is yours to release, or a decline. */
export type Acquired =
  | { readonly kind: "granted"; readonly lease: Lease }
  | { readonly kind: "skipped"; readonly decline: Skipped }
  | { readonly kind: "fallbackToCpu"; readonly decline: FallbackToCpu };

/** Of `withGpuLease`: what the work came to, on the GPU (T) or on the CPU (C). The lease is over by then. */
export type Outcome<T, C = undefined> =
  | { readonly kind: "granted"; readonly value: T; readonly lease: Lease }
  | { readonly kind: "skipped"; readonly decline: Skipped }
  | { readonly kind: "fallbackToCpu"; readonly value: C; readonly decline: FallbackToCpu };
