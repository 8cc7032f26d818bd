//! Makes sure that an operation asked for once happens once: the Rust API.
