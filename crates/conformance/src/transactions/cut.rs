//! The case of a connection to a server that is lost.

use core::future::Future;

use onlyonce_store::transaction::TxError;

use super::{Ask, Shop, Told, ordered};

/// A way to a server, on which what passes in one direction is counted.
pub trait Line {
    /// How many bytes have passed.
    fn passed(&self) -> usize;

    /// Cuts it after so many more.
    fn cut_after(&self, bytes: usize);

    /// Lets everything pass.
    fn mend(&self);
}

/// A shop whose database is a server.
pub trait Remote: Shop {
    /// A way to it.
    type Line: Line;

    /// A new way; what is counted goes to the server, or comes from it.
    fn line(&self, to_server: bool) -> Self::Line;

    /// As [`Shop::order`], on a connection by that way.
    fn order_by(
        &self,
        line: &Self::Line,
        ask: Ask<'_>,
    ) -> impl Future<Output = Result<Told, TxError>>;

    /// Waits until no transaction is open any more: a server may be at one for a moment longer than
    /// its connection lasts.
    fn settle(&self);
}

/// The connection is cut after every few bytes that go either way, the commit and its answer among
/// them. Whoever was cut off asks again.
pub async fn a_connection_that_is_cut_anywhere_leaves_the_order_and_its_record_or_neither(
    shop: &impl Remote,
) {
    let (mut whole, mut unknown) = (0, 0);
    let ways = (0..shop.doors()).flat_map(|door| [(door, true), (door, false)]);
    for (door, to_server) in ways {
        let line = shop.line(to_server);
        let name = format!("{door}-{to_server}");
        let before = line.passed();
        shop.order_by(&line, Ask::at(door, &format!("{name}-all"))).await.unwrap();
        let bytes = line.passed() - before;
        whole += 1;
        for left in (0..=bytes).rev().step_by(bytes / 11) {
            let key = format!("{name}-{left}");
            line.mend();
            line.cut_after(left.max(1));
            let first = shop.order_by(&line, Ask::at(door, &key)).await;
            shop.settle();
            let counts = shop.counts();
            assert_eq!(counts.orders, counts.records, "{key}: {first:?}");
            match &first {
                Ok(_) => assert_eq!(counts.orders, whole + 1, "{key}"),
                Err(error) if error.may_have_happened() => unknown += 1,
                Err(_) => assert_eq!(counts.orders, whole, "{key}: {first:?}"),
            }
            let second = ordered(shop, Ask::at(door, &key)).await;
            let ran = matches!(second, Told::Ran(_));
            assert_eq!(ran, counts.orders == whole, "{key}: {first:?}, then {second:?}");
            whole += 1;
            let counts = shop.counts();
            assert_eq!((counts.orders, counts.records), (whole, whole), "{key}");
        }
    }
    assert!(0 < unknown, "no answer to a commit was lost");
}
