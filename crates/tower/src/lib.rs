//! The onlyonce middleware for tower, axum and hyper.
