//! Faults that are put in on purpose, to see that the oracle finds them.

/// What is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bug {
    /// Nothing.
    #[default]
    None,
    /// A claim that lapsed while committing is taken for one that did nothing.
    LapseIsRelease,
    /// A holder sends before its commit mark is durable.
    CommitSkipped,
    /// A swap whose fate is not known is taken for done.
    LostIsDone,
    /// A node never reads the floor again.
    FloorNeverRead,
    /// The sweeper deletes without raising the floor first.
    DeletesBeforeFloor,
    /// A holder that got no answer in time says that nothing happened.
    TimeoutIsRelease,
    /// A claim takes over the fingerprint that it finds.
    FingerprintIgnored,
    /// The store replaces records whatever their revision.
    StoreIgnoresRevision,
    /// A completion is told to the caller although it was not recorded.
    OtherReplyShown,
    /// The sweeper deletes by a floor that others may not have read yet.
    SweepsByNewerFloor,
    /// A holder waits for ever for an answer that was lost.
    NeverGivesUp,
}
