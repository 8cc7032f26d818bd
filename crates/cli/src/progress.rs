//! How far a long command has got: on standard error, and only if that is a terminal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a line that knows of no steps is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// A line that is drawn anew as the work goes on, and gone when it is done.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// For work whose length nobody knows.
    pub(crate) fn counting(unit: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style(&format!("{{spinner}} {{pos}} {unit} in {{elapsed}}")));
        Self(bar)
    }

    /// For work that nobody can look into.
    pub(crate) fn waiting(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {msg} for {elapsed}"));
        bar.set_message(what);
        bar.enable_steady_tick(DRAW_EVERY);
        Self(bar)
    }

    /// For work that tells how far it is of how much.
    pub(crate) fn reading(what: &'static str) -> Self {
        let bar = ProgressBar::new(1);
        bar.set_style(style("{msg} [{bar:40}] {percent} % in {elapsed}"));
        bar.set_message(what);
        Self(bar)
    }

    /// So much more was done.
    pub(crate) fn more(&self, count: usize) {
        self.0.inc(count as u64);
    }

    /// So many were done.
    pub(crate) fn at_count(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So much was done of so much.
    pub(crate) fn at(&self, done: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line for each of several things that are being done.
pub(crate) struct Board {
    lines: MultiProgress,
    at: RefCell<BTreeMap<String, ProgressBar>>,
}

impl Board {
    /// One with nothing on it.
    pub(crate) fn new() -> Self {
        Self { lines: MultiProgress::new(), at: RefCell::default() }
    }

    /// What is being done about this one.
    pub(crate) fn at(&self, name: &str, what: &str) {
        let mut at = self.at.borrow_mut();
        let bar = at.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.lines.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix} {msg} ({elapsed})"));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(DRAW_EVERY);
            bar
        });
        bar.set_message(what.to_owned());
    }

    /// This one has ended.
    pub(crate) fn ended(&self, name: &str) {
        if let Some(bar) = self.at.borrow_mut().remove(name) {
            bar.finish_and_clear();
        }
    }

    /// Writes to the terminal what is to stay there.
    pub(crate) fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.lines.suspend(write)
    }
}

/// A pattern of ours that cannot be read is one that a test has not seen; the bar is then plain.
fn style(pattern: &str) -> ProgressStyle {
    ProgressStyle::with_template(pattern).unwrap_or_else(|_| ProgressStyle::default_bar())
}
