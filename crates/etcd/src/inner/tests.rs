//! What was sent and given up does not take place, whenever it arrives.

use onlyonce_conformance::{claimed, id};
use onlyonce_core::Floor;

use crate::{Etcd, Target};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_from_before_a_lost_answer_does_not_take_place() {
    let server = onlyonce_testbed::Etcd::start();
    let target: Target = format!("etcd://{}?accept=single", server.address()).parse().unwrap();
    Etcd::init(&target, Floor::NONE).await.unwrap();
    let store = Etcd::open(&target).await.unwrap();
    let inner = store.inner();
    let sent = inner.fence.mark(&inner.members).await.unwrap();
    let late = inner.transaction(id(1), &sent, None, Some(&claimed(1))).unwrap();
    assert!(inner.members.write(late.clone()).await.unwrap().succeeded, "it would have");
    let late = inner.transaction(id(2), &sent, None, Some(&claimed(2))).unwrap();

    inner.fence.doubt();
    let raised = inner.fence.mark(&inner.members).await.unwrap();
    assert!(!inner.members.write(late.clone()).await.unwrap().succeeded);
    assert_eq!(inner.get(id(2)).await, Ok(None));

    // The same after the lease has ended: another number has another name.
    inner.fence.lost();
    let other = inner.fence.mark(&inner.members).await.unwrap();
    assert_ne!(other.key, raised.key);
    assert!(!inner.members.write(late).await.unwrap().succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_handed_the_old_number_while_it_is_raised() {
    let server = onlyonce_testbed::Etcd::start();
    let target: Target = format!("etcd://{}?accept=single", server.address()).parse().unwrap();
    Etcd::init(&target, Floor::NONE).await.unwrap();
    let store = Etcd::open(&target).await.unwrap();
    let inner = store.inner();
    for _ in 0..50 {
        let sent = inner.fence.mark(&inner.members).await.unwrap();
        // Wakes the one that keeps the number, which raises it at the same time as these.
        inner.fence.doubt();
        for _ in 0..20 {
            let now = inner.fence.mark(&inner.members).await.unwrap();
            assert_ne!(now.value(), sent.value());
            tokio::task::yield_now().await;
        }
    }
}
