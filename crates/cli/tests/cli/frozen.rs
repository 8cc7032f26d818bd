//! A proxy that is stopped past its lease, as by a machine that sleeps, and wakes up again.

use std::time::Duration;

use rustix::process::Signal;

use crate::caller::order;
use crate::process::{Folder, Proxy};
use crate::upstream::{Manner, Upstream};

/// Longer than lease and skew together; only time itself ends a lease.
const FROZEN: Duration = Duration::from_secs(4);

#[test]
fn a_holder_that_wakes_up_after_its_lease_makes_no_second_effect() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let config = "[policy]\nlease = \"2s\"\nskew_max = \"100ms\"\nwait = \"100ms\"\n";
    let config = folder.write("proxy.toml", config);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--config", &config]);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");

    proxy.signal(Signal::STOP);
    // It comes while nobody can answer, and is the first to be answered.
    let meanwhile = order("tap").begin(proxy.address);
    std::thread::sleep(FROZEN);
    proxy.signal(Signal::CONT);

    let told = meanwhile.answer().unwrap();
    assert_eq!(told.status, 409, "it runs still, or nobody knows: {told:?}");
    upstream.let_go();
    // The answer came late, and is the answer for good.
    let answer = begun.answer().unwrap().ran();
    assert_eq!(order("tap").settle(proxy.address).replayed(), answer);
    assert_eq!(upstream.effects(), 1);
    proxy.kill();
    let proxy = Proxy::start(&folder, &upstream);
    assert_eq!(order("tap").send(proxy.address).replayed(), answer);
    assert_eq!(upstream.effects(), 1);
}
