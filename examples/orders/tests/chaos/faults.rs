//! What goes wrong, by a seed.

use std::thread;
use std::time::Duration;

use onlyonce_testbed::Way;

use crate::random::Random;
use crate::world::{RECORDS, SHOP, WAREHOUSES, World};

/// Longer than the lease of the warehouses.
const STOPPED: Duration = Duration::from_secs(7);
const SECOND: Duration = Duration::from_secs(1);

/// One thing goes wrong, and is over when this returns. Says what it was.
pub(crate) fn strike(world: &mut World, random: &mut Random) -> &'static str {
    let warehouse = WAREHOUSES[random.below(2) as usize];
    let moment = Duration::from_millis(100 + random.below(1_500));
    match random.below(12) {
        0 | 1 => {
            world.programs[warehouse].restart();
            "a warehouse is killed"
        }
        2 => {
            WAREHOUSES.iter().for_each(|at| world.programs[*at].restart());
            "both warehouses are killed"
        }
        3 => {
            world.programs[warehouse].server().freeze();
            thread::sleep(STOPPED);
            world.programs[warehouse].server().thaw();
            "a warehouse is stopped for longer than its lease"
        }
        4 | 5 => {
            world.programs[SHOP].restart();
            "the shop is killed"
        }
        6 => {
            world.broker.restart();
            "the broker is killed"
        }
        7 => {
            world.database.restart();
            "the database is killed"
        }
        8 => {
            world.broker_relay.cut();
            thread::sleep(moment);
            world.broker_relay.mend();
            "the broker is cut off"
        }
        9 => {
            world.database_relay.cut();
            thread::sleep(moment);
            world.database_relay.mend();
            "the database is cut off"
        }
        10 => {
            world.counter_relay.cut();
            world.broker_relay.lose(Way::ToServer);
            thread::sleep(moment.min(SECOND / 2));
            world.broker_relay.cut();
            world.broker_relay.mend();
            world.counter_relay.mend();
            "what is said to the broker is lost, then the line"
        }
        _ => {
            world.programs[RECORDS].restart();
            "the record service is killed"
        }
    }
}
