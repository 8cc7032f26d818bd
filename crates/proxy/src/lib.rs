//! A reverse proxy that runs each idempotency key once.
