//! What was found after a kill, and whether that is allowed.

use crate::bench::Bench;
use crate::caller::{Answer, Saw};
use crate::rows::{Row, Scene};

/// A row, filled in.
pub(crate) struct Found {
    pub(crate) row: Row,
    /// Effects when the process was dead.
    pub(crate) effects: usize,
    pub(crate) saw: Saw,
    told: Option<Answer>,
    /// The record after the restart.
    pub(crate) state: String,
    /// What the same key is answered then.
    pub(crate) again: Answer,
    pub(crate) effects_then: usize,
}

/// Plays one row to its end.
pub(crate) fn find(scene: &Scene, row: Row, bench: &mut Bench, key: &str) -> Found {
    let played = (scene.play)(bench, row.place, key);
    let effects = bench.shop.effects_of(key);
    bench.check(bench.journal());
    bench.shop.manner(crate::shop::Manner::Answer);
    let stored = scene.swept.then(|| bench.state(key));
    bench.proxy();
    let state = stored.unwrap_or_else(|| bench.state(key));
    let again = bench.asks(played.path, key, played.length);
    let effects_then = bench.shop.effects_of(key);
    Found { row, effects, saw: played.saw, told: played.told, state, again, effects_then }
}

impl Found {
    /// Holds it against what is promised.
    pub(crate) fn judge(&self, scene: &Scene) -> Result<(), String> {
        let Self { effects, effects_then, again, .. } = self;
        let seen = match &self.saw {
            Saw::Whole(answer) if answer.is_the_shops() => Some(answer),
            Saw::Whole(_) | Saw::Part | Saw::Nothing => None,
        };
        let told: Vec<&Answer> = self.told.iter().chain(seen).collect();
        let problem = again.problem().unwrap_or_default();
        let is_kept = match (self.state.as_str(), again.status, again.says.as_str()) {
            // It certainly did not happen, so it happens now.
            ("absent" | "released", 201, "executed") => *effects == 0 && *effects_then == 1,
            ("unknown", 409, "unknown") => effects == effects_then && problem == "outcome-unknown",
            ("completed", 201, "replayed") => *effects == 1 && *effects_then == 1,
            ("completed" | "tombstone", 410, _) => {
                scene.expires && *effects == 1 && *effects_then == 1
            }
            _ => false,
        };
        if 1 < *effects_then {
            return Err("it ran twice".into());
        }
        if !is_kept {
            return Err("what is answered again does not fit".into());
        }
        let fits = |told: &&Answer| scene.expires || told.body == again.body;
        if !told.iter().all(fits) || (!told.is_empty() && self.state == "unknown") {
            return Err("an answer that was seen whole is not given again".into());
        }
        Ok(())
    }
}
