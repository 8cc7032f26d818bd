//! What a store of a test leaves to the one behind it.

/// The calls of a [`Store`](onlyonce_store::Store) that a store of a test hands on, as they are, to
/// the one in this field: `hands_on!(inner: floor, due);` among its own calls.
#[macro_export]
macro_rules! hands_on {
    ($to:tt: $($call:ident),+) => { $($crate::hand_on!($call $to);)+ };
}

/// One of these calls.
#[doc(hidden)]
#[macro_export]
macro_rules! hand_on {
    (get $to:tt) => {
        fn get(&self, id: $crate::core::KeyId) -> $crate::Called<'_, Option<$crate::core::Record>> {
            self.$to.get(id)
        }
    };
    (swap $to:tt) => {
        fn swap(
            &self,
            id: $crate::core::KeyId,
            expected: Option<$crate::core::Revision>,
            next: Option<$crate::core::Record>,
        ) -> $crate::Called<'_, $crate::store::Swap> {
            self.$to.swap(id, expected, next)
        }
    };
    (floor $to:tt) => {
        fn floor(&self) -> $crate::Called<'_, $crate::core::Floor> {
            self.$to.floor()
        }
    };
    (raise_floor $to:tt) => {
        fn raise_floor(&self, to: $crate::core::Floor) -> $crate::Called<'_, ()> {
            self.$to.raise_floor(to)
        }
    };
    (clock $to:tt) => {
        fn clock(&self) -> $crate::Called<'_, Option<$crate::core::Timestamp>> {
            self.$to.clock()
        }
    };
    (revision_max $to:tt) => {
        fn revision_max(&self) -> $crate::Called<'_, u64> {
            self.$to.revision_max()
        }
    };
    (due $to:tt) => {
        fn due(
            &self,
            due: $crate::store::Due,
            limit: usize,
        ) -> $crate::Called<'_, Vec<$crate::core::KeyId>> {
            self.$to.due(due, limit)
        }
    };
    (reclaim $to:tt) => {
        fn reclaim(&self) -> $crate::Called<'_, ()> {
            self.$to.reclaim()
        }
    };
    (list $to:tt) => {
        fn list(
            &self,
            filter: $crate::store::Filter,
            after: Option<$crate::store::Cursor>,
        ) -> $crate::Called<'_, $crate::store::Page> {
            self.$to.list(filter, after)
        }
    };
    (notices $to:tt) => {
        fn notices(&self, teller: $crate::store::Teller) {
            self.$to.notices(teller);
        }
    };
    (reply_max $to:tt) => {
        fn reply_max(&self) -> usize {
            self.$to.reply_max()
        }
    };
    (is_exclusive $to:tt) => {
        fn is_exclusive(&self) -> bool {
            self.$to.is_exclusive()
        }
    };
}
