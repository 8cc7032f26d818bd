//! Every order of the calls of nodes that hold different maps, of a mover that may die between any
//! two of them, and of a sweeper: the real code, one call of a member at a time, with the effects
//! counted outside.

mod choosing;
mod gate;
mod schedule;
mod world;

use schedule::{Task, every_order};
use world::{At, End, Node, World};

/// The map before, the one of the move, and the one after it; and of the way back.
const OLD: &str = "1 1 -";
const MOVING: &str = "2 1,2 1";
const SETTLED: &str = "3 1,2 -";
const BACK: &str = "4 1 1,2";
/// And once more.
const AGAIN_BEFORE: &str = "5 1 -";
const AGAIN: &str = "6 1,2 1";

/// Before any move: nothing, a key that is free, and one whose mover has died after its copy.
const BEFORE: [&[(At, u32)]; 3] =
    [&[], &[(At::Released, 1)], &[(At::Released, 1), (At::ClaimedEarlier, 2)]];

/// A world whose members hold these records, and a node for each map that was in force.
fn world(end: End, records: &[(At, u32)], maps: &[&str]) -> (World, Vec<Node>) {
    let world = World::new(records, end);
    let nodes = maps.iter().map(|map| world.node(map)).collect();
    (world, nodes)
}

#[test]
fn two_nodes_with_the_map_before_and_that_of_the_move_run_a_key_once() {
    let mut runs = 0;
    for records in BEFORE {
        runs += every_order(|| {
            let (world, nodes) = world(End::RanOnce, records, &[OLD, MOVING]);
            let tasks = nodes.iter().map(|node| Task::steady(node.clone().run())).collect();
            (tasks, world)
        });
    }
    assert!(10 < runs, "{runs} ends");
}

#[test]
fn a_mover_that_dies_anywhere_loses_nothing_and_lets_nobody_in_twice() {
    for records in BEFORE {
        for map in [OLD, MOVING] {
            every_order(|| {
                let (world, nodes) = world(End::RanOnce, records, &[map, MOVING]);
                let tasks = vec![
                    Task::steady(nodes[0].clone().run()),
                    Task::mortal(nodes[1].clone().carry()),
                    Task::steady(nodes[0].clone().read()),
                ];
                (tasks, world)
            });
        }
    }
}

#[test]
fn a_node_that_dies_at_any_call_leaves_a_key_that_nobody_runs_twice() {
    for records in BEFORE {
        every_order(|| {
            let (world, nodes) = world(End::GrantedOnce, records, &[OLD, MOVING, MOVING]);
            let tasks = vec![
                Task::steady(nodes[0].clone().claim()),
                Task::mortal(nodes[1].clone().claim()),
                Task::mortal(nodes[2].clone().carry()),
            ];
            (tasks, world)
        });
    }
}

#[test]
fn two_movers_leave_the_latest_record() {
    for records in BEFORE {
        every_order(|| {
            let (world, nodes) = world(End::GrantedOnce, records, &[OLD, MOVING, MOVING]);
            let tasks = vec![
                Task::steady(nodes[0].clone().claim()),
                Task::mortal(nodes[1].clone().carry()),
                Task::mortal(nodes[2].clone().carry()),
            ];
            (tasks, world)
        });
    }
}

#[test]
fn a_node_that_does_not_name_the_member_that_joined_is_refused_and_runs_nothing_twice() {
    for records in BEFORE {
        every_order(|| {
            let world = World::new(records, End::GrantedOnce);
            let nodes = [world.node_of(OLD, &[1]), world.node(MOVING)];
            let tasks = nodes.map(|node| Task::steady(node.run())).into();
            (tasks, world)
        });
    }
}

#[test]
fn nodes_with_the_map_of_the_move_and_the_one_after_it_run_a_key_once() {
    let after: [&[(At, u32)]; 3] =
        [&[], &[(At::Forward(2), 1)], &[(At::Forward(2), 1), (At::Released, 2)]];
    for records in after {
        every_order(|| {
            let (world, nodes) = world(End::RanOnce, records, &[MOVING, SETTLED]);
            let tasks = vec![
                Task::steady(nodes[0].clone().run()),
                Task::steady(nodes[1].clone().run()),
                Task::mortal(nodes[1].clone().clean()),
            ];
            (tasks, world)
        });
    }
}

#[test]
fn a_key_that_moves_back_passes_the_forward_of_its_first_move() {
    let after: [&[(At, u32)]; 3] =
        [&[(At::Forward(2), 1)], &[(At::Forward(2), 1), (At::Released, 2)], &[(At::Released, 2)]];
    for records in after {
        every_order(|| {
            let (world, nodes) = world(End::GrantedOnce, records, &[SETTLED, BACK, BACK]);
            let tasks = vec![
                Task::steady(nodes[0].clone().claim()),
                Task::steady(nodes[1].clone().claim()),
                Task::mortal(nodes[2].clone().carry()),
            ];
            (tasks, world)
        });
    }
}

#[test]
fn a_forward_of_an_earlier_move_lets_nobody_in_twice() {
    let records: &[(At, u32)] = &[(At::Forward(2), 1)];
    every_order(|| {
        let (world, nodes) = world(End::GrantedOnce, records, &[AGAIN_BEFORE, AGAIN, AGAIN]);
        let tasks = vec![
            Task::steady(nodes[0].clone().claim()),
            Task::steady(nodes[1].clone().claim()),
            Task::mortal(nodes[2].clone().carry()),
        ];
        (tasks, world)
    });
}

#[test]
fn what_a_sweeper_deletes_during_a_move_never_runs_again() {
    let records: &[(At, u32)] = &[(At::Forgotten, 1)];
    for sweeper in [OLD, MOVING] {
        for claimant in [OLD, MOVING] {
            every_order(|| {
                let (world, nodes) = world(End::GrantedNever, records, &[OLD, MOVING]);
                let node = |map| nodes[usize::from(map == MOVING)].clone();
                let tasks = vec![
                    Task::steady(node(sweeper).sweep()),
                    Task::steady(node(claimant).claim()),
                    Task::mortal(node(MOVING).carry()),
                ];
                (tasks, world)
            });
        }
    }
}
