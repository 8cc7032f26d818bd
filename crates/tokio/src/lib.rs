//! Runs the onlyonce engine on tokio and the system clock.
