//! Transactions of callers' own that are open on a store while it is to be at rest.

/// What can be seen of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenTransactions {
    /// None has used the store.
    None,
    /// One at least has, and may commit a claim yet; which, as far as that is told.
    Some(String),
    /// Nobody tells us; what would help.
    Unseen(String),
}
