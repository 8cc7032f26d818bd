//! What HTTP means for an idempotency key, without I/O.
