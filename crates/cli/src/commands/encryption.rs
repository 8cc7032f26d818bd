//! `onlyonce keys encryption`

use std::collections::BTreeMap;

use onlyonce_vault::PLAIN;

use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::{Ask, Operator, Told};
use crate::output::{self, printable};
use crate::progress::Bar;

pub(crate) async fn run(store: &StoreArgs, renew: bool) -> Result<(), Failure> {
    let operator = Operator::at(store).await?;
    let shown = show(&operator, renew).await;
    operator.close();
    shown
}

/// What all pages have told.
#[derive(Default)]
struct All {
    found: BTreeMap<String, u64>,
    renewed: u64,
    unread: Vec<String>,
    /// Of the key file, the newest first.
    keys: Vec<String>,
    /// When the first page was looked at, in milliseconds.
    began: u64,
}

async fn show(operator: &Operator, renew: bool) -> Result<(), Failure> {
    let mut all = pages(operator, renew).await?;
    if renew {
        output::line(&format!("{} answers were encrypted anew", all.renewed))?;
        // What stands there now.
        all = pages(operator, false).await?;
    }
    for text in &all.unread {
        output::line(&format!("damaged: {}", printable(text)))?;
    }
    let newest = all.keys.first().cloned().unwrap_or_default();
    let is_clean = all.unread.is_empty() && all.found.keys().all(|name| *name == newest);
    let mut why = "a proxy encrypts what is left in the background, once at each start".to_owned();
    let mut is_settled = false;
    if is_clean {
        let settled = Ask::Encrypted { newest: newest.clone(), began: all.began };
        if let Told::Resolved { done, text, .. } = operator.ask(settled).await? {
            (is_settled, why) = (done, format!("{text}; ask again later"));
        }
    }
    output::line(&output::table(["KEY", "ANSWERS", "ABOUT"], &rows(&all, &newest, is_settled)))?;
    Ok(output::line(&match is_settled {
        true => format!("no answer needs another key than {newest}"),
        false => why,
    })?)
}

async fn pages(operator: &Operator, renew: bool) -> Result<All, Failure> {
    let (mut all, mut after) = (All::default(), None);
    let bar = Bar::counting("answers");
    loop {
        let told = operator.ask(Ask::Encryption { after, renew }).await?;
        let Told::Encryption { found, renewed, unread, next, keys, at } = told else {
            return Err(Failure::new(Exit::Unknown, "the answer is not understood"));
        };
        if all.began == 0 {
            all.began = at;
        }
        bar.more(found.values().sum::<u64>() as usize);
        for (name, count) in found {
            *all.found.entry(name).or_default() += count;
        }
        all.renewed += renewed;
        all.unread.extend(unread);
        all.keys = keys;
        after = next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Those of the key file in their order, then what else was found.
fn rows(all: &All, newest: &str, is_settled: bool) -> Vec<[String; 3]> {
    let others = all.found.keys().filter(|name| !all.keys.contains(name));
    let row = |name: &String| {
        let count = all.found.get(name).copied().unwrap_or_default();
        let about = match count {
            _ if name == newest => "encrypts what is written",
            _ if name == PLAIN => "not encrypted yet",
            _ if !all.keys.contains(name) => "not in the key file: nobody can read these",
            0 if is_settled => "can be taken out of the key file",
            0 => "no answer uses it, but keep it until that is sure",
            _ => "needed until these are encrypted anew",
        };
        [name.clone(), count.to_string(), about.to_owned()]
    };
    all.keys.iter().chain(others).map(row).collect()
}
