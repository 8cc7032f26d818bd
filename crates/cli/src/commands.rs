//! The commands, one file each.

pub(crate) mod choose;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod encryption;
pub(crate) mod functions;
pub(crate) mod generate;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod mail;
pub(crate) mod migrate;
pub(crate) mod provision;
pub(crate) mod proxy;
pub(crate) mod restored;
pub(crate) mod run;
mod running;
pub(crate) mod serve;
pub(crate) mod size;
pub(crate) mod spread;
pub(crate) mod store;
