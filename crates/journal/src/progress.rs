//! How far a long reading has got, for whoever waits for it.

/// Is told how many of how many segments were read; one that is read several times counts so often.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// Tells nobody.
pub(crate) const SILENT: Progress<'static> = &|_, _| {};
