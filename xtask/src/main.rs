//! Checks, tests and benchmarks of this repository.
fn main() {}
