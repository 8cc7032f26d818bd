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
    /// A holder whose commit mark was refused sends all the same.
    FencedGoesOn,
    /// A swap whose fate is not known is taken for done.
    LostIsDone,
    /// A read whose answer was lost is taken for "there is nothing".
    LostIsAbsent,
    /// A node never reads the floor again.
    FloorNeverRead,
    /// A grant that took longer than a floor may be used is taken for good.
    LateGrantTaken,
    /// The sweeper deletes without raising the floor first.
    DeletesBeforeFloor,
    /// The sweeper deletes by a floor that others may not have read yet.
    SweepsByNewerFloor,
    /// A sweeper goes by the floor that another one has just raised.
    WordTakenAtOnce,
    /// The sweeper deletes what is in doubt.
    SweepsDoubt,
    /// A holder that got no answer in time says that nothing happened.
    TimeoutIsRelease,
    /// A release forgets the doubt that its claim was granted out of.
    ReleaseForgetsDoubt,
    /// A claim takes over the fingerprint that it finds.
    FingerprintIgnored,
    /// A claim takes over the credential that it finds.
    CredentialIgnored,
    /// A key that was sealed is granted.
    SealIgnored,
    /// A key whose answer was erased is taken for one that is free.
    ErasedRunsAgain,
    /// The record does not keep that another answer came.
    AlarmNotKept,
    /// Whoever has waited for another attempt claims when that has ended.
    WaiterClaims,
    /// The store replaces records whatever their revision.
    StoreIgnoresRevision,
    /// A grant is told with the fence of the grant before it.
    OldFenceTold,
    /// What is recorded is not what the receiver has answered.
    OtherReplyKept,
    /// A holder waits for ever for an answer that was lost.
    NeverGivesUp,
    /// A receiver that remembers a key for some time is declared to remember it much longer.
    WindowIgnored,
    /// A receiver that offers nothing is declared to know every name for ever.
    BareRunsAgain,
    /// That a queryable receiver has nothing is taken for final at once.
    AbsentAtOnce,
    /// A seal at the receiver is not kept there.
    SealNotKept,
}
