//! What every store of idempotency records must pass.
