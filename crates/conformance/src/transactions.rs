//! What holds for claims in transactions of a caller's, in every database and at each of its doors:
//! a shop whose orders and records are in one database.
//! [`transaction_suite!`](crate::transaction_suite) makes a test of each case, and
//! [`cut_suite!`](crate::cut_suite) of those about connections.

mod cases;
mod cut;

use core::future::Future;

use onlyonce_core::{Fence, KeyId, Outcome, Policy, Record, Scope, Secret, Timestamp};
use onlyonce_store::Store;
use onlyonce_store::transaction::{Request, TxError};

pub use cases::*;
pub use cut::*;

/// A new shop, with a store in its database and no order.
pub trait Shop {
    /// The store, as another process has it open.
    fn store(&self) -> &dyn Store;

    /// What its key ids are made with.
    fn secret(&self) -> &Secret;

    /// The present time.
    fn now(&self) -> Timestamp;

    /// In how many ways a program can claim.
    fn doors(&self) -> usize;

    /// How many isolation levels there are.
    fn levels(&self) -> usize {
        1
    }

    /// Whether who comes while another one has the key may be told so at once at this level.
    fn sees_what_is_not_committed(&self, _level: usize) -> bool {
        false
    }

    /// Orders once in a transaction on a connection of its own: claims under the scope [`SCOPE`],
    /// and if that is granted writes an order under the key and answers with 201 and a text that
    /// is another each time; writes a visit, whatever it is told; and ends as it is asked.
    fn order(&self, ask: Ask<'_>) -> impl Future<Output = Result<Told, TxError>>;

    /// Writes an order, completes a claim that was granted elsewhere with 201 and `done`, and
    /// commits; rolls back if that is refused.
    fn complete(
        &self,
        door: usize,
        key: &str,
        fence: Fence,
    ) -> impl Future<Output = Result<(), TxError>>;

    /// Waits before it is tried again, after so many times. Callers who hold each other up must.
    fn pause(&self, _tries: u32) -> impl Future<Output = ()> {
        core::future::ready(())
    }

    /// What is committed.
    fn counts(&self) -> Counts;

    /// What the key is found by, and its request.
    fn request(&self, key: &str, content: &str) -> Request {
        let key = onlyonce_core::Key::new(key.to_owned()).unwrap();
        Request::new(self.secret(), &Scope::new(SCOPE).unwrap(), &key, content.as_bytes())
    }

    /// What the key is found by.
    fn id(&self, key: &str) -> KeyId {
        self.request(key, key).id
    }

    /// What the store has under the key.
    fn record(&self, key: &str) -> impl Future<Output = Option<Record>> {
        async move { self.store().get(self.id(key)).await.unwrap() }
    }
}

/// Whose keys they are.
pub const SCOPE: &str = "orders";

/// What a customer asks.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// By which way, from 0.
    pub door: usize,
    /// At which isolation level, from 0.
    pub level: usize,
    /// The key.
    pub key: &'a str,
    /// What must be the same whenever the key comes again.
    pub content: &'a str,
    /// Under which policy.
    pub policy: Policy,
    /// How the transaction ends.
    pub end: End,
}

impl<'a> Ask<'a> {
    /// One that is committed, at the first level.
    pub fn at(door: usize, key: &'a str) -> Self {
        let (level, policy) = (0, Policy::default());
        Self { door, level, key, content: key, policy, end: End::Commit }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its completion.
    Commit,
    /// Without it, by mistake.
    CommitHalf,
    /// It is taken back after the completion.
    RollBack,
}

/// What a customer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It ran, with this answer.
    Ran(String),
    /// This answer was given before.
    Replayed(String),
    /// Nothing ran; the name of the outcome, as SQL tells it.
    Refused(String),
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Orders.
    pub orders: u64,
    /// Records that say that something was answered.
    pub records: u64,
    /// Transactions that were committed.
    pub visits: u64,
}

/// The name of an outcome that grants nothing, as SQL tells it.
pub fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Granted(_) => "granted",
        Outcome::Replay { .. } => "replay",
        Outcome::InFlight { .. } => "in-flight",
        Outcome::Mismatch => "mismatch",
        Outcome::OutcomeUnknown { .. } => "outcome-unknown",
        Outcome::Gone { .. } => "gone",
        Outcome::Expired => "expired",
        Outcome::Done => "done",
        Outcome::Fenced => "fenced",
        Outcome::InvalidFence => "invalid-fence",
        Outcome::CredentialChanged | Outcome::SecondReply | Outcome::Absent => "never",
    }
}

/// Orders until it is told something that is no error to be sent again after.
async fn ordered(shop: &impl Shop, ask: Ask<'_>) -> Told {
    let mut last = None;
    for tries in 1..=200 {
        match shop.order(ask).await {
            Ok(told) => return told,
            Err(error) => {
                assert!(error.is_retryable() && !error.may_have_happened(), "{error}");
                last = Some(error);
                shop.pause(tries).await;
            }
        }
    }
    panic!("two hundred times in vain: {ask:?}: {last:?}");
}

/// Makes a test of every case, each on a shop of its own; `$block_on` waits for a future.
#[macro_export]
macro_rules! transaction_suite {
    ($block_on:expr, $shop:expr) => {
        $crate::transaction_suite! { $block_on, $shop;
            fifty_at_once_with_one_key_run_it_once_and_all_get_its_answer,
            what_one_door_has_run_every_door_answers,
            a_transaction_goes_on_after_a_duplicate,
            what_is_rolled_back_has_left_no_record_and_runs_the_next_time,
            a_claim_that_is_committed_without_its_answer_becomes_unknown_and_never_free,
            where_the_policy_says_so_a_doubt_is_run_again,
            another_request_under_the_key_is_told_so,
            a_claim_from_outside_completes_once_and_only_if_it_is_the_latest,
            a_key_that_was_forgotten_is_expired_and_one_from_far_ahead_is_refused,
            a_store_that_was_moved_or_is_encrypted_takes_no_claim,
            engines_that_begin_know_of_every_number_that_was_used,
        }
    };
    ($block_on:expr, $shop:expr; $($case:ident),+ $(,)?) => {
        $(
            #[test]
            fn $case() {
                let shop = $shop;
                $block_on($crate::transactions::$case(&shop));
            }
        )+
    };
}

/// Makes a test of every case about connections that are lost.
#[macro_export]
macro_rules! cut_suite {
    ($block_on:expr, $shop:expr) => {
        $crate::transaction_suite! { $block_on, $shop;
            a_connection_that_is_cut_anywhere_leaves_the_order_and_its_record_or_neither,
        }
    };
}
