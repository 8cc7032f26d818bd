//! One request over HTTP, to an API of somebody else's, and text with references to make it of.
//!
//! Requests to AWS can be signed ([`aws`]).
//!
//! Nothing is sent again by itself, and it is known whether anything was sent at all. This crate
//! cannot say what an answer means, and knows no key and no record.

pub mod aws;
mod client;
pub mod template;

pub use client::{Answer, Connection, Failed, encoded, send};
