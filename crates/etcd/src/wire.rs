//! The messages of etcd's API that are used, as its `rpc.proto` and `kv.proto` number them. Written
//! by hand, so that no build needs a compiler of protocol buffers.

/// In the header of each answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Header {
    #[prost(uint64, tag = "1")]
    pub(crate) cluster: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
    #[prost(bool, tag = "8")]
    pub(crate) keys_only: bool,
    #[prost(bool, tag = "9")]
    pub(crate) count_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ranged {
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
}

/// An answer of which only its arrival counts.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Done {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Op {
    #[prost(oneof = "OpKind", tags = "1, 2, 3, 4")]
    pub(crate) kind: Option<OpKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OpKind {
    #[prost(message, tag = "1")]
    Range(Range),
    #[prost(message, tag = "2")]
    Put(Put),
    #[prost(message, tag = "3")]
    Delete(Delete),
    #[prost(message, tag = "4")]
    Txn(Txn),
}

impl Op {
    pub(crate) fn get(key: Vec<u8>) -> Self {
        Self::range(Range { key, ..Range::default() })
    }

    pub(crate) fn range(range: Range) -> Self {
        Self { kind: Some(OpKind::Range(range)) }
    }

    pub(crate) fn put(key: Vec<u8>, value: impl Into<Vec<u8>>) -> Self {
        Self::put_with_lease(key, value, 0)
    }

    pub(crate) fn put_with_lease(key: Vec<u8>, value: impl Into<Vec<u8>>, lease: i64) -> Self {
        Self { kind: Some(OpKind::Put(Put { key, value: value.into(), lease })) }
    }

    pub(crate) fn delete(key: Vec<u8>) -> Self {
        Self { kind: Some(OpKind::Delete(Delete { key })) }
    }

    pub(crate) fn txn(txn: Txn) -> Self {
        Self { kind: Some(OpKind::Txn(txn)) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(oneof = "AnswerKind", tags = "1, 2, 3, 4")]
    pub(crate) kind: Option<AnswerKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum AnswerKind {
    #[prost(message, tag = "1")]
    Range(Ranged),
    #[prost(message, tag = "2")]
    Put(Done),
    #[prost(message, tag = "3")]
    Delete(Done),
    #[prost(message, tag = "4")]
    Txn(Done),
}

impl Answer {
    /// The first key of a read.
    pub(crate) fn first(self) -> Option<KeyValue> {
        match self.kind? {
            AnswerKind::Range(ranged) => ranged.kvs.into_iter().next(),
            AnswerKind::Put(_) | AnswerKind::Delete(_) | AnswerKind::Txn(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Is {
    Equal = 0,
    Greater = 1,
    Less = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Of {
    Version = 0,
    ModRevision = 2,
    Value = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Compare {
    #[prost(enumeration = "Is", tag = "1")]
    is: i32,
    #[prost(enumeration = "Of", tag = "2")]
    of: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "To", tags = "4, 6, 7")]
    to: Option<To>,
    #[prost(bytes = "vec", tag = "64")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum To {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    fn new(key: Vec<u8>, is: Is, of: Of, to: To) -> Self {
        Self { is: is as i32, of: of as i32, key, to: Some(to), range_end: Vec::new() }
    }

    /// That there is no such key.
    pub(crate) fn absent(key: Vec<u8>) -> Self {
        Self::new(key, Is::Equal, Of::Version, To::Version(0))
    }

    /// That no key begins so.
    pub(crate) fn none_begins(prefix: Vec<u8>) -> Self {
        let range_end = end_of(&prefix);
        Self { range_end, ..Self::absent(prefix) }
    }

    /// That there is such a key.
    pub(crate) fn present(key: Vec<u8>) -> Self {
        Self::new(key, Is::Greater, Of::Version, To::Version(0))
    }

    /// That the key was last changed by that revision of etcd's.
    pub(crate) fn unchanged_since(key: Vec<u8>, revision: i64) -> Self {
        Self::new(key, Is::Equal, Of::ModRevision, To::ModRevision(revision))
    }

    /// What the key's value is; a key that is absent has none.
    pub(crate) fn value(key: Vec<u8>, is: Is, value: impl Into<Vec<u8>>) -> Self {
        Self::new(key, is, Of::Value, To::Value(value.into()))
    }
}

/// The first key that does not begin so.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // Prefixes are text, so no byte is the largest there is.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub(crate) when: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) then: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) otherwise: Vec<Op>,
}

impl Txn {
    /// One that only does.
    pub(crate) fn of(op: Op) -> Self {
        Self { then: vec![op], ..Self::default() }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TxnDone {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(crate) answers: Vec<Answer>,
}

impl TxnDone {
    /// etcd's revision when it took place.
    pub(crate) fn revision(&self) -> i64 {
        self.header.as_ref().map(|header| header.revision).unwrap_or_default()
    }

    /// The key of the first read.
    pub(crate) fn first(self) -> Option<KeyValue> {
        self.answers.into_iter().next()?.first()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Compact {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Lease {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeepAlive {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
}

/// The answer to both.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Leased {
    #[prost(int64, tag = "2")]
    pub(crate) id: i64,
    #[prost(int64, tag = "3")]
    pub(crate) seconds: i64,
}

/// What is to be watched, or not any more.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Watch {
    #[prost(oneof = "WatchKind", tags = "1, 2")]
    pub(crate) kind: Option<WatchKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum WatchKind {
    #[prost(message, tag = "1")]
    Begin(WatchBegin),
    #[prost(message, tag = "2")]
    End(WatchEnd),
}

impl Watch {
    /// Of this key, under a number of our own.
    pub(crate) fn begin(key: Vec<u8>, number: i64) -> Self {
        Self { kind: Some(WatchKind::Begin(WatchBegin { key, number })) }
    }

    pub(crate) fn end(number: i64) -> Self {
        Self { kind: Some(WatchKind::End(WatchEnd { number })) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchBegin {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "7")]
    pub(crate) number: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchEnd {
    #[prost(int64, tag = "1")]
    pub(crate) number: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Watched {
    #[prost(int64, tag = "2")]
    pub(crate) number: i64,
    #[prost(bool, tag = "3")]
    pub(crate) begun: bool,
    #[prost(bool, tag = "4")]
    pub(crate) ended: bool,
    #[prost(string, tag = "6")]
    pub(crate) why: String,
    /// Of which only their number counts.
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Done>,
}

/// A question without anything to say.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
    #[prost(bool, tag = "10")]
    pub(crate) is_learner: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Alarms {
    #[prost(message, repeated, tag = "2")]
    pub(crate) alarms: Vec<Alarm>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Alarm {
    #[prost(int32, tag = "2")]
    pub(crate) kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberList {
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<ListedMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListedMember {
    #[prost(bool, tag = "5")]
    pub(crate) is_learner: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Login {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) password: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Token {
    #[prost(string, tag = "2")]
    pub(crate) token: String,
}
