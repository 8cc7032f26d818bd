//! The servers do what tests rely on.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use onlyonce_testbed::{
    Etcd, EtcdCluster, RabbitMq, Redis, RedisCluster, Relay, Sentinel, Way, until,
};

fn lives(id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{id}/exe")).exists()
}

#[test]
fn a_server_ends_with_a_test_that_panics() {
    let mut id = 0;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let redis = Redis::start();
        id = redis.server().id();
        assert!(lives(id));
        panic!("on purpose");
    }));
    assert!(ended.is_err());
    assert!(!lives(id));
}

#[test]
fn redis_keeps_data_and_port_over_a_kill() {
    let mut redis = Redis::start();
    let port = redis.port();
    assert_eq!(redis.ask(&["SET", "a", "1"]), "+OK\r\n");
    redis.restart();
    assert_eq!((redis.port(), redis.ask(&["GET", "a"])), (port, "$1\r\n1\r\n".to_owned()));
}

#[test]
fn a_replica_follows_and_a_sentinel_promotes_it() {
    let mut master = Redis::start();
    let replica = Redis::replica_of(&master);
    let sentinel = Sentinel::watching(&master);
    sentinel.await_replica();
    master.ask(&["SET", "a", "1"]);
    until("it is copied", || replica.ask(&["GET", "a"]).contains('1').then_some(()));
    let port = master.port();
    master.kill();
    sentinel.await_other_master(port);
    until("it is the master", || replica.info("replication").contains("role:master").then_some(()));
}

#[test]
fn a_cluster_shares_the_slots() {
    let mut cluster = RedisCluster::start();
    let answers: Vec<_> = cluster.nodes().iter().map(|node| node.ask(&["SET", "a", "1"])).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "+OK\r\n").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("-MOVED")).count(), 2);
}

#[test]
fn etcd_keeps_data_over_a_kill() {
    let mut etcd = Etcd::start();
    etcd.post("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#).unwrap();
    etcd.restart();
    let found = etcd.post("/v3/kv/range", r#"{"key":"YQ=="}"#).unwrap();
    assert!(found.contains("MQ=="), "{found}");
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let mut cluster = EtcdCluster::start();
    let first = cluster.await_leader();
    cluster.isolate(first);
    let second = until("another leader", || {
        let leads = |at: &usize| *at != first && cluster.members()[*at].leads();
        (0..3).find(leads)
    });
    cluster.mend();
    let old = &cluster.members()[first];
    until("the old one follows", || (!old.leads()).then_some(()));
    assert_ne!(first, second);
}

#[test]
fn a_broker_answers_again_on_its_port_and_ends_with_its_test() {
    let mut broker = RabbitMq::start();
    let (url, first) = (broker.url(), broker.server().id());
    broker.restart();
    let second = broker.server().id();
    assert_eq!(broker.url(), url);
    assert!(!lives(first) && lives(second));
    drop(broker);
    assert!(!lives(second));
}

/// A server that answers every byte with two.
fn doubler() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&[byte[0], byte[0]]);
                }
            });
        }
    });
    address
}

#[test]
fn a_relay_passes_cuts_holds_and_loses() {
    let relay = Relay::to(doubler());
    let connect = || TcpStream::connect(relay.address()).unwrap();
    let told = |stream: &mut TcpStream, length: usize| {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    let mut one = connect();
    one.write_all(b"ab").unwrap();
    assert_eq!(told(&mut one, 4).unwrap(), b"aabb");

    relay.lose(Way::ToClient);
    one.write_all(b"c").unwrap();
    until("the answer is lost", || (relay.lost() == 2).then_some(()));
    relay.mend();
    relay.hold();
    one.write_all(b"d").unwrap();
    relay.mend();
    assert_eq!(told(&mut one, 2).unwrap(), b"dd");

    relay.cut_after(Way::ToClient, 3);
    let mut two = connect();
    two.write_all(b"ef").unwrap();
    let mut rest = Vec::new();
    let _ = two.read_to_end(&mut rest);
    assert_eq!(rest, b"eef");
    let mut three = connect();
    assert!(matches!(three.read(&mut [0]), Ok(0) | Err(_)), "it is cut");
    relay.mend();
    let mut four = connect();
    four.write_all(b"g").unwrap();
    assert_eq!(told(&mut four, 2).unwrap(), b"gg");
}
