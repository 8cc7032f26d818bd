//! Makes the resources of a plan, each once, however often the plan is applied and wherever that is
//! cut off.
//!
//! A [`Plan`] is a file that names resources, what they are made of and what they wait for. A
//! [`Provisioner`] makes what is not there: it looks first, adopts only what carries the key's
//! marker, makes durable that a resource may be made before it asks for it, and records its id
//! before it waits for anything else. Where nobody can know whether something was made, it looks
//! again within the bounds that the plan declares, or leaves it to a person.
//!
//! It keeps no state of its own: what is known of a resource is a record of the engine, and each
//! making is an [`onlyonce::Effect`]. It cannot name a store, reads no clock, and deletes nothing
//! but what somebody names and confirms ([`Provisioner::destroy`]), which is an effect too.

mod apply;
mod creation;
mod destroy;
mod destruction;
mod error;
mod forecast;
mod identity;
mod kind;
mod operate;
mod plan;
mod provisioner;
mod receipt;
mod script;

use onlyonce_ask::{self as client, template};

pub use apply::{Applied, Became, InDoubt, Step, Work};
pub use destroy::Destroyed;
pub use error::ProvisionError;
pub use forecast::{Forecast, Would};
pub use identity::Identity;
pub use kind::Seen;
pub use operate::{Changed, Finding, Known, Status};
pub use plan::{Plan, Resource};
pub use provisioner::{Provisioner, policy_of_verdicts};
pub use receipt::{Departure, How, Receipt};
