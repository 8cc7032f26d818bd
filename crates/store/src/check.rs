//! What is looked at before a store is used: each check by its name, and what was found. A store
//! is refused by the first that fails; all of them together are what a doctor tells.

use crate::open::{OpenError, OpenErrorKind};

/// A check that a kind of store makes: its name, and what must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The setting, or what else is looked at.
    pub name: &'static str,
    /// What it must be.
    pub needed: &'static str,
}

impl Need {
    /// A check of this name.
    pub const fn new(name: &'static str, needed: &'static str) -> Self {
        Self { name, needed }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is as it must be.
    Good,
    /// It is not, and the store is not opened.
    Refused(OpenErrorKind),
    /// It is not, and the store is opened all the same: the address takes the risk, or it is one
    /// that nothing rules out.
    Accepted,
    /// Nobody says: the server does not, or what is before it was refused.
    Unasked,
}

impl Found {
    /// As it is told to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Refused(_) => "refused",
            Self::Accepted => "risk accepted",
            Self::Unasked => "cannot be asked",
        }
    }
}

/// A check that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which one.
    pub need: Need,
    /// The file or server, without a password.
    pub place: String,
    /// What is there.
    pub says: String,
    /// What came of it.
    pub found: Found,
    /// What is wrong with it; empty if nothing is.
    pub why: String,
    /// What to do about it; empty if nothing is known to help.
    pub fix: String,
    /// The name of the risk that somebody has taken with it, if it is one that has to be taken.
    pub risk: Option<&'static str>,
}

/// What the operator of a store should know of it while it is open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The name of the risk that was taken; none for what nobody has to take.
    pub risk: Option<&'static str>,
    /// What may be lost, and where.
    pub text: String,
}

impl Warning {
    /// What a check has found at its place.
    pub fn of(check: &Check) -> Self {
        Self { risk: check.risk, text: format!("{}: {}", check.place, check.why) }
    }
}

impl Check {
    /// Why the store is not opened, if this is why.
    pub fn error(&self) -> Option<OpenError> {
        let Found::Refused(kind) = self.found else { return None };
        let between = if self.fix.is_empty() { "" } else { ": " };
        let text = format!("{}{between}{}", self.why, self.fix);
        Some(OpenError::new(kind, self.place.as_str(), text))
    }
}

/// The checks at one place, in the order in which they were made.
#[derive(Clone, Debug)]
pub struct Checks {
    place: String,
    list: Vec<Check>,
}

impl Checks {
    /// None yet; `place` names the file or server, without a password.
    pub fn at(place: impl Into<String>) -> Self {
        Self { place: place.into(), list: Vec::new() }
    }

    /// The file or server that is looked at.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// It is as it must be.
    pub fn good(&mut self, need: Need, says: impl Into<String>) {
        self.add(need, Found::Good, says.into(), ("", ""));
    }

    /// A setting that would break a promise unless it is good.
    pub fn must(&mut self, need: Need, says: impl Into<String>, good: bool, why: &str, fix: &str) {
        if good {
            self.good(need, says);
        } else {
            self.refuse(OpenErrorKind::Refused, need, says, why, fix);
        }
    }

    /// The store is not opened because of it. The answer is for when nothing further can be asked.
    pub fn refuse(
        &mut self,
        kind: OpenErrorKind,
        need: Need,
        says: impl Into<String>,
        why: &str,
        fix: &str,
    ) -> OpenError {
        let check = self.add(need, Found::Refused(kind), says.into(), (why, fix));
        let error = check.error();
        error.unwrap_or_else(|| OpenError::new(kind, "", why))
    }

    /// A risk with which the store is opened, whoever opens it.
    pub fn accept(&mut self, need: Need, says: impl Into<String>, why: &str, fix: &str) {
        self.add(need, Found::Accepted, says.into(), (why, fix));
    }

    /// The risk of this name, with which the store is opened since somebody has said so.
    pub fn take(
        &mut self,
        risk: &'static str,
        need: Need,
        says: impl Into<String>,
        why: &str,
        fix: &str,
    ) {
        self.add(need, Found::Accepted, says.into(), (why, fix));
        self.list.iter_mut().rev().take(1).for_each(|check| check.risk = Some(risk));
    }

    /// Looking was cut short by this error, which belongs to `need` unless it was told already.
    pub fn failed(&mut self, need: Need, error: &OpenError) {
        if !self.list.iter().any(|check| check.error().as_ref() == Some(error)) {
            self.refuse(error.kind(), need, "no", error.text(), "");
        }
    }

    /// Whether the store may be opened.
    ///
    /// # Errors
    /// The first check that refuses it.
    pub fn verdict(&self) -> Result<(), OpenError> {
        self.list.iter().find_map(Check::error).map_or(Ok(()), Err)
    }

    /// The risks with which it is opened.
    pub fn accepted(&self) -> impl Iterator<Item = &Check> {
        self.list.iter().filter(|check| check.found == Found::Accepted)
    }

    /// All of `needs`, also those that were not come to.
    pub fn finish(self, needs: &[Need]) -> Vec<Check> {
        let Self { place, list } = self;
        let unasked = |need: Need| Check {
            need,
            place: place.clone(),
            says: String::new(),
            found: Found::Unasked,
            why: String::new(),
            fix: String::new(),
            risk: None,
        };
        let missing = needs.iter().filter(|need| !list.iter().any(|it| it.need == **need));
        let missing: Vec<Check> = missing.map(|need| unasked(*need)).collect();
        list.into_iter().chain(missing).collect()
    }

    fn add(&mut self, need: Need, found: Found, says: String, what: (&str, &str)) -> &Check {
        let (why, fix) = (what.0.to_owned(), what.1.to_owned());
        self.list.push(Check {
            need,
            place: self.place.clone(),
            says,
            found,
            why,
            fix,
            risk: None,
        });
        &self.list[self.list.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Need = Need::new("one", "on");
    const TWO: Need = Need::new("two", "on");
    const THREE: Need = Need::new("three", "on");

    #[test]
    fn a_store_is_refused_by_the_first_check_that_fails_and_all_are_told() {
        let mut checks = Checks::at("db");
        checks.must(ONE, "on", true, "it is off", "SET one = on");
        assert_eq!(checks.verdict(), Ok(()));
        checks.must(TWO, "off", false, "two is off", "SET two = on");
        let lost = OpenError::new(OpenErrorKind::Unavailable, "db", "it went away");
        checks.failed(ONE, &lost);
        checks.failed(ONE, &lost);
        let error = checks.verdict().unwrap_err();
        assert_eq!(error.to_string(), "db: two is off: SET two = on");
        let told: Vec<_> = checks.finish(&[ONE, TWO, THREE]);
        let told: Vec<_> = told.iter().map(|it| (it.need.name, it.found.name())).collect();
        let all = [("one", "ok"), ("two", "refused"), ("one", "refused")];
        assert_eq!(told[..3], all);
        assert_eq!(told[3..], [("three", "cannot be asked")]);
    }
}
