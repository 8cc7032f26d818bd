//! All there is: the record, the holders, what is under way, the receiver, and what was told.

use core::fmt;

use onlyonce_core::{Fence, Floor, Record, Reply, State, Timestamp, settle};

use crate::Setup;
use crate::class::{Class, LATE, Modelled, REMEMBER, at};
use crate::holder::Holder;
use crate::mutant::Mutant;
use crate::receiver::Receiver;

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub(crate) tick: u8,
    pub(crate) record: Option<Record>,
    pub(crate) holders: [Holder; 2],
    /// What was sent and may still arrive.
    pub(crate) net: Vec<Message>,
    pub(crate) receiver: Receiver,
    /// What an operator has found out, and not said yet, about the claim with this fence.
    pub(crate) found: Option<(Fence, Found)>,
    /// When the floor was raised above the key's time.
    pub(crate) raised: Option<u8>,
    /// How many answers of the store may still get lost.
    pub(crate) losses: u8,
    /// How many claims were granted.
    pub(crate) claims: u8,
    /// How often a person had it run again.
    pub(crate) reruns: u8,
    /// The largest fence ever granted.
    pub(crate) top: Option<Fence>,
    /// The largest fence of the life before this one.
    pub(crate) forgotten: Option<Fence>,
    /// The number of the reply that was first recorded.
    pub(crate) told: Option<u8>,
    /// Whether it was sealed in this life.
    pub(crate) sealed: bool,
    /// The promise that the last step has broken.
    pub(crate) broken: Option<&'static str>,
}

/// A request on its way to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    pub(crate) fence: Fence,
    /// When its attempt was marked, where the receiver's promise rests on a bound from there.
    pub(crate) marked: u8,
}

/// What an operator, or a probe, has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Found {
    /// It happened, and was answered so.
    Happened(u8),
    /// It did not happen and no longer can.
    NotExecuted,
    /// Nothing; it shall run all the same.
    RunAgain,
}

impl World {
    pub(crate) fn new(losses: u8) -> Self {
        Self {
            tick: 0,
            record: None,
            holders: [Holder::Idle; 2],
            net: Vec::new(),
            receiver: Receiver::default(),
            found: None,
            raised: None,
            losses,
            claims: 0,
            reruns: 0,
            top: None,
            forgotten: None,
            told: None,
            sealed: false,
            broken: None,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.tick)
    }

    /// The store's floor; or, if `old`, the one before it.
    pub(crate) fn floor(&self, old: bool) -> Floor {
        match self.raised {
            Some(raised) if !old => Floor::at(at(raised).minus(REMEMBER)),
            Some(_) | None => Floor::NONE,
        }
    }

    /// Whether no node can use a floor any more that has not passed the key.
    pub(crate) fn floor_is_known(&self) -> bool {
        self.raised.is_some_and(|raised| raised < self.tick)
    }

    /// The record as time has left it.
    pub(crate) fn settled(&self, class: Class) -> Option<Record> {
        let policy = class.policy();
        self.record.as_ref().map(|record| settle(self.now(), &policy, record))
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.record.as_ref().is_some_and(|record| matches!(record.state, State::Unknown(_)))
    }

    /// Whether the fence was granted in an earlier life of the key.
    pub(crate) fn is_forgotten(&self, fence: Fence) -> bool {
        self.forgotten.is_some_and(|forgotten| fence <= forgotten)
    }

    /// Whether what was marked then is too late to take effect.
    pub(crate) fn is_late(&self, class: Class, marked: u8) -> bool {
        class.is_bounded() && marked + LATE < self.tick
    }

    /// Whether it happened, or still can by an attempt that was begun. The truth, of which holders
    /// and operators see only parts.
    pub(crate) fn may_have_happened(&self, setup: &Setup) -> bool {
        let class = setup.class;
        let can = |fence, marked: u8| {
            !self.is_forgotten(fence)
                && !self.is_late(class, marked)
                && self.receiver.accepts(setup, fence)
        };
        !self.receiver.effects.is_empty()
            || self.net.iter().any(|message| can(message.fence, message.marked))
            || self.holders.iter().any(|holder| match holder {
                Holder::Ready { fence, marked } => can(*fence, marked.unwrap_or(self.tick)),
                // A transaction of the claim in flight may be written; any other is undone.
                Holder::Holding { fence } if class == Class::Transactional => {
                    !self.is_forgotten(*fence) && self.is_written(setup, *fence)
                }
                Holder::Idle | Holder::Unsure { .. } => false,
                Holder::Holding { .. } | Holder::Sent { .. } => false,
            })
    }

    /// Whether a transaction under `fence` would be written.
    fn is_written(&self, setup: &Setup, fence: Fence) -> bool {
        let record = self.settled(setup.class);
        setup.mutant == Mutant::TransactionUnchecked
            || record.is_some_and(|record| {
                record.fence == fence && matches!(record.state, State::InFlight(_))
            })
    }

    /// Keeps the first promise that broke.
    pub(crate) fn demand(&mut self, setup: &Setup, invariant: &'static str, holds: bool) {
        if !holds && setup.watched.is_none_or(|watched| watched == invariant) {
            self.broken.get_or_insert(invariant);
        }
    }

    /// A key without a time of its own runs as new once it is forgotten: the one case, and a
    /// stated one. What its earlier life still does outside is not counted for the new one.
    pub(crate) fn forget(&mut self) {
        self.net.clear();
        self.receiver = Receiver::default();
        (self.told, self.sealed, self.reruns) = (None, false, 0);
        self.forgotten = self.top;
    }
}

/// The answer of the receiver's effect `number`.
pub(crate) fn reply(number: u8) -> Reply {
    Reply::kept(200 + u16::from(number), "")
}

/// The effect that was answered with this status.
pub(crate) fn number(status: u16) -> Option<u8> {
    status.checked_sub(200).and_then(|number| u8::try_from(number).ok())
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tick = self.tick;
        match &self.record {
            Some(record) => {
                let (fence, state) = (record.fence.get(), &record.state);
                write!(f, "[{tick}] latest fence {fence}, {state:?}; ")?;
            }
            None => write!(f, "[{tick}] no record; ")?,
        }
        let Self { holders, net, receiver, .. } = self;
        write!(f, "{holders:?}, under way {net:?}, {receiver:?}")
    }
}
