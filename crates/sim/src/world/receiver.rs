//! The receiver of what is sent, as its class has it. It knows nothing of records, but for the
//! transactional one, whose effect and completion are written together.

use std::time::Duration;

use onlyonce_core::{
    Always, Class, Command, Fence, Next, OnUnknown, Receiver, Reply, State, Timestamp, decide,
};

use super::{Effect, Message, World};
use crate::bug::Bug;
use crate::random::Random;

/// How long a keyed receiver remembers a key. Short, so that a run lives through it.
const WINDOW: Duration = Duration::from_secs(200);
/// How long it takes until a queryable receiver shows what has happened.
const SETTLE: Duration = Duration::from_secs(5);
/// How late something arrives at most after its attempt was given up, where that is bounded.
const LATE: Duration = Duration::from_secs(20);

/// One in two worlds has a bare receiver.
pub(super) fn class(random: &mut Random) -> Class {
    let at = random.below(12) as usize;
    Class::ALL.get(at).copied().unwrap_or(Class::Bare)
}

/// What is declared of the receiver, and what is made of it.
pub(super) fn declared(class: Class, bug: Bug) -> (OnUnknown, Receiver) {
    let receiver = match class {
        Class::Transactional => Receiver::always(Always::Transactional),
        Class::Fenced => Receiver::always(Always::Fenced),
        Class::UniqueName => Receiver::always(Always::UniqueName),
        Class::Sealable => Receiver::always(Always::Sealable),
        Class::Keyed if bug == Bug::WindowIgnored => Receiver::keyed(WINDOW * 100),
        Class::Keyed => Receiver { late: LATE, ..Receiver::keyed(WINDOW) },
        Class::Queryable => Receiver::queryable(SETTLE, LATE),
        Class::Bare if bug == Bug::BareRunsAgain => Receiver::always(Always::UniqueName),
        Class::Bare => Receiver::BARE,
    };
    (OnUnknown::Auto, receiver)
}

/// What comes of an arrival.
enum Arrival {
    Refused,
    /// It is taken for what happened already.
    Repeats(Reply),
    Happens,
}

impl World {
    /// Whether what is sent under `fence` can do nothing any more, however it gets there.
    pub(super) fn is_in_vain(&self, key: usize, fence: Fence) -> bool {
        let known = &self.keys[key];
        match self.class {
            Class::Fenced => known.seen.is_some_and(|seen| fence < seen),
            Class::Sealable => known.occupied.is_some_and(|occupied| fence <= occupied),
            // That nothing arrives later than so is what their promises rest on.
            Class::Keyed | Class::Queryable => self.is_too_late(key, fence),
            Class::Transactional | Class::UniqueName | Class::Bare => false,
        }
    }

    fn is_too_late(&self, key: usize, fence: Fence) -> bool {
        let known = &self.keys[key];
        let of_fence = |list: &[(Fence, u64)]| {
            list.iter().find(|(it, _)| *it == fence).map(|(_, at)| Timestamp::from_millis(*at))
        };
        let lease = self.policy.lease;
        let over = of_fence(&known.marked).map(|marked| marked.plus(lease));
        let ended = [over, of_fence(&known.given_up)].into_iter().flatten().min();
        ended.is_some_and(|ended| ended.plus(LATE).as_millis() < self.now)
    }

    /// What can do nothing any more is not under way.
    pub(super) fn drop_what_is_in_vain(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        for message in messages {
            let (key, life) = (message.key, message.life);
            if life == self.keys[key].life && self.is_in_vain(key, message.fence) {
                self.keys[key].under_way -= 1;
            } else {
                self.messages.push(message);
            }
        }
    }

    /// A message arrives.
    pub(super) fn arrive(&mut self, message: Message) {
        let (key, fence) = (message.key, message.fence);
        let of_now = message.life == self.keys[key].life;
        self.keys[key].under_way -= usize::from(of_now);
        self.replies += 1;
        let reply = Reply::kept(200 + self.replies, bytes::Bytes::new());
        match self.arrival(&message, of_now, &reply) {
            Arrival::Refused => self.note(key, || format!("{} is refused", fence.get())),
            Arrival::Repeats(reply) => {
                self.note(key, || format!("{} is known", fence.get()));
                self.keys[key].heard.push((fence, reply));
            }
            Arrival::Happens => self.happen(message, of_now, reply),
        }
        self.keys[key].seen = self.keys[key].seen.max(Some(fence));
        self.drop_what_is_in_vain();
    }

    fn arrival(&mut self, message: &Message, of_now: bool, reply: &Reply) -> Arrival {
        let (key, fence) = (message.key, message.fence);
        let last = self.keys[key].effects_now().last().cloned().filter(|_| of_now);
        let known = match self.class {
            Class::Transactional => return self.transact(key, fence, reply),
            _ if of_now && self.is_in_vain(key, fence) => return Arrival::Refused,
            // The same value is set again, or the name is taken by us.
            Class::Fenced | Class::UniqueName => last,
            Class::Keyed => last.filter(|it| self.now < it.at + WINDOW.as_millis() as u64),
            Class::Sealable | Class::Queryable | Class::Bare => None,
        };
        known.map_or(Arrival::Happens, |known| Arrival::Repeats(known.reply))
    }

    /// The effect and the completion are written together, under the latest claim only.
    fn transact(&mut self, key: usize, fence: Fence, reply: &Reply) -> Arrival {
        let Some(record) = self.keys[key].record.clone().filter(|record| record.fence == fence)
        else {
            return Arrival::Refused;
        };
        match record.state {
            State::InFlight(_) | State::Unknown(_) => {}
            State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => {
                return Arrival::Refused;
            }
        }
        let command = Command::Complete { fence, reply: reply.clone() };
        let now = Timestamp::from_millis(self.now);
        match decide(now, self.floor, &self.policy, Some(&record), &command).next {
            Next::Write(next) => {
                self.swap_now(key, Some(record.revision), Some(next));
                Arrival::Happens
            }
            Next::Keep | Next::Delete => Arrival::Refused,
        }
    }

    fn happen(&mut self, message: Message, of_now: bool, reply: Reply) {
        let Message { key, fence, asker, .. } = message;
        let effect = Effect { fence, asker, reply, at: self.now };
        let known = &mut self.keys[key];
        if of_now {
            known.effects.push(effect);
        } else {
            known.effects.insert(known.earlier, effect);
            known.earlier += 1;
        }
        self.note(key, || format!("IT HAPPENS under {}", fence.get()));
        let broken = crate::invariants::once::check(&self.keys[key]);
        self.report(key, broken);
    }

    /// What the receiver has answered to what was sent under a claim.
    pub(crate) fn answer_to(&self, key: usize, fence: Fence) -> Option<Reply> {
        let known = &self.keys[key];
        let effect = known.effects.iter().find(|effect| effect.fence == fence);
        let heard = || known.heard.iter().find(|(it, _)| *it == fence).map(|(_, reply)| reply);
        effect.map(|effect| &effect.reply).or_else(heard).cloned()
    }

    /// What a queryable receiver shows.
    pub(crate) fn shown(&self, key: usize) -> Option<Reply> {
        let settled = |at: u64| at + SETTLE.as_millis() as u64 <= self.now;
        let shown = self.keys[key].effects_now().iter().rfind(|effect| settled(effect.at));
        shown.map(|effect| effect.reply.clone())
    }

    /// Occupies what every attempt up to `fence` would use, or finds that one was first.
    pub(crate) fn occupy(&mut self, key: usize, fence: Fence) -> Option<Reply> {
        let found = self.keys[key].effects_now().last().map(|effect| effect.reply.clone());
        if found.is_none() && self.bug != Bug::SealNotKept {
            self.keys[key].occupied = self.keys[key].occupied.max(Some(fence));
            self.drop_what_is_in_vain();
        }
        found
    }
}
