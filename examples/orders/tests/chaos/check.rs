//! Whether everything that was promised was kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::customers::Wish;
use crate::world::{STOCK, World};

/// What has become of the orders.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) confirmed: usize,
    pub(crate) sold_out: usize,
    pub(crate) cancelled: usize,
    /// Labels of which nobody knows whether they were printed.
    pub(crate) labels_unknown: usize,
    /// Answers that were heard, duplicates included.
    pub(crate) heard: u64,
}

/// What the warehouse has reserved, by the number of the order: item, quantity, confirmation.
fn reservations(world: &World) -> BTreeMap<String, (String, u64, String)> {
    let query = "SELECT number, item, quantity, confirmation FROM reservations";
    let rows = world.database.sql("postgres", query);
    let row = |line: &str| {
        let [number, item, quantity, confirmation] =
            line.split('|').collect::<Vec<_>>()[..].try_into().unwrap();
        let number: &str = number;
        (number.to_owned(), (item.to_owned(), quantity.parse().unwrap(), confirmation.to_owned()))
    };
    rows.lines().map(row).collect()
}

/// Everything, from the outside: the tables of the database, the tray of the printer, and what the
/// shop has heard.
pub(crate) fn check(world: &World, wishes: &[Wish], book: &Value) -> Result<Tally, String> {
    let reserved = reservations(world);
    let labels = world.printer.labels();
    let mut tally = Tally::default();
    let mut heard: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for one in book["heard"].as_array().ok_or("the shop heard nothing")? {
        heard.entry(one["number"].as_str().unwrap_or("")).or_default().push(one);
        tally.heard += one["times"].as_u64().unwrap_or(0);
    }
    let orders = book["orders"].as_array().ok_or("the shop has no orders")?;
    let by_number: BTreeMap<_, _> = orders.iter().map(|it| (it["number"].as_str(), it)).collect();
    for wish in wishes {
        let order = by_number.get(&Some(&*wish.number)).ok_or(format!("{wish:?} is lost"))?;
        let answers = heard.remove(&*wish.number).unwrap_or_default();
        let printed = labels.iter().filter(|it| **it == wish.number).count();
        let reservation = reserved.get(&wish.number);
        one(wish, order, &answers, printed, reservation, &mut tally).map_err(|why| {
            format!("{why}: {wish:?} {order} {answers:?} {reservation:?} {printed}")
        })?;
    }
    if let Some((number, _)) = heard.pop_first() {
        return Err(format!("an answer to nobody: {number}"));
    }
    if reserved.len() != tally.confirmed {
        return Err(format!("{} reservations for {tally:?}", reserved.len()));
    }
    // Read by the store's own functions, from the rows that the reservations were committed with.
    let records = "SELECT count(*) FROM onlyonce.records r, \
                   onlyonce._read(r.id, r.revision, r.record) p \
                   WHERE p.state = 3 AND p.status = 201";
    let records = world.database.sql("postgres", records);
    if records != reserved.len().to_string() {
        return Err(format!("{records} records for {} reservations", reserved.len()));
    }
    for (item, before) in STOCK {
        let query = format!("SELECT free FROM stock WHERE item = '{item}'");
        let free: u64 = world.database.sql("postgres", &query).parse().unwrap();
        let taken: u64 =
            reserved.values().filter(|(it, ..)| it == item).map(|(_, quantity, _)| quantity).sum();
        if free + taken != u64::from(before) {
            return Err(format!("{item}: {before} before, {taken} reserved, {free} left"));
        }
    }
    let alarms = world.programs.iter().filter(|program| program.said().contains("ALARM"));
    match alarms.map(|program| program.name).next() {
        Some(name) => Err(format!("{name} has put something aside")),
        None => Ok(tally),
    }
}

fn one(
    wish: &Wish,
    order: &Value,
    answers: &[&Value],
    printed: usize,
    reservation: Option<&(String, u64, String)>,
    tally: &mut Tally,
) -> Result<(), &'static str> {
    let [answer] = answers else { return Err("not one answer, always the same") };
    if (&order["status"], &order["answer"]) != (&answer["status"], &answer["answer"]) {
        return Err("the order has another answer");
    }
    let status = answer["status"].as_u64();
    let cancel = order["cancel"].as_str();
    if (cancel == Some("cancelled")) != (status == Some(410)) || cancel == Some("wanted") {
        return Err("what the customer was told of calling off is not so");
    }
    if wish.called_off_first && status != Some(410) {
        return Err("it was called off first");
    }
    match (status, reservation) {
        (Some(201), Some((item, quantity, confirmation))) => {
            let text = json!({ "order": wish.number, "confirmation": confirmation }).to_string();
            if answer["answer"] != text || (&**item, *quantity) != (wish.item, wish.quantity) {
                return Err("it was confirmed otherwise than it was reserved");
            }
            tally.confirmed += 1;
            match (order["label"].as_str(), printed) {
                (Some("printed"), 1) => Ok(()),
                (Some("unknown"), 0 | 1) => {
                    tally.labels_unknown += 1;
                    Ok(())
                }
                _ => Err("its label is not what is said of it"),
            }
        }
        (Some(409), None) if printed == 0 => {
            tally.sold_out += 1;
            Ok(())
        }
        (Some(410), None) if printed == 0 => {
            tally.cancelled += 1;
            Ok(())
        }
        _ => Err("it was answered and reserved differently"),
    }
}
