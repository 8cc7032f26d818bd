//! Places where a process of a test ends itself. This crate cannot do anything in an ordinary
//! build: its macros leave nothing behind there, not even the names.
//!
//! With the feature `armed` a process reads, at each place that it passes, the file that
//! `ONLYONCE_KILL_AT` names. Its first line is `kill PLACE`; every other line is something that the
//! state there must say. If all of it fits, the process kills itself: no destructor runs, nothing
//! is flushed, and no socket is closed in good order. With `pass PLACE` it goes on, and leaves a
//! file with the ending `passed` beside the order. With `hold PLACE` it leaves that file too, and
//! its thread goes on once the order is gone: until then a test can stop the process right there.
//!
//! A place is named after what it stands before or after. What is found at each of them stands in
//! `docs/killed-at.md`.

#[cfg(feature = "armed")]
mod armed;

#[cfg(feature = "armed")]
pub use armed::{Tapped, pass};

/// A place with this name. What stands behind the name is the state, written by its `Debug`; it is
/// not evaluated in an ordinary build.
#[cfg(feature = "armed")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal, $state:expr) => {
        $crate::pass($name, &$state)
    };
}

/// Nothing: this is an ordinary build.
#[cfg(not(feature = "armed"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal, $state:expr) => {};
}

/// A stream with places around its reads and writes: `NAME.read.after`, `NAME.write.before` and
/// `NAME.write.after`. Their states are the bytes.
#[cfg(feature = "armed")]
#[macro_export]
macro_rules! tapped {
    ($name:literal, $stream:expr) => {
        $crate::Tapped::new($name, $stream)
    };
}

/// The stream itself: this is an ordinary build.
#[cfg(not(feature = "armed"))]
#[macro_export]
macro_rules! tapped {
    ($name:literal, $stream:expr) => {
        $stream
    };
}
