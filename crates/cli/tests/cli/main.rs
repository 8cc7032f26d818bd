//! The real binary, run as a user runs it: before an upstream that counts, through stops, kills and
//! damage. Each test is one promise of the documents.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod backup;
mod balancers;
mod caller;
mod clocks;
mod cloud;
mod config;
mod copy;
mod damage;
mod doctor;
mod failover;
mod failpoints;
mod frozen;
mod full;
mod functions;
mod help;
mod log;
mod mail;
mod migrate;
mod notices;
mod open;
mod operate;
mod process;
mod provision;
mod replay;
mod resources;
mod restored;
mod risk;
mod run;
mod service;
mod services;
mod shared;
mod spread;
mod stop;
mod store;
mod stranded;
mod upstream;
mod vault;
