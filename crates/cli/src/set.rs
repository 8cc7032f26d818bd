//! Several stores as one, named by a file with a line for each: making a set, opening it, and
//! letting members join. [`crate::commands::spread`] moves its keys.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use onlyonce::Runtime as _;
use onlyonce_core::{Fence, Secret};
use onlyonce_journal::{Settings, Start};
use onlyonce_spread::{Given, MEMBERS_MAX, Map, Number, Seat, Spread, Steady};
use onlyonce_store::{BoxFuture, Check, Filter, Found, Need, OpenErrorKind, Warning};
use onlyonce_tokio::TokioRuntime;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::{Mark, Role};
use crate::open;
use crate::place::{Opened, Place, now};

/// That the stores of the file are the members of one set.
const SET: Need = Need::new("set", "all members of one set, and no other store");

/// A set that is open. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Set {
    /// All of them as one.
    pub(crate) spread: Spread,
    /// With their addresses and numbers, in the order of the file.
    pub(crate) members: Vec<(Place, Number, Opened)>,
    warnings: Vec<Warning>,
}

impl Set {
    /// Opens all stores that the file names as one. Boxed, since a place opens a set of places.
    pub(crate) fn open(file: &Path) -> BoxFuture<'_, Result<Self, Failure>> {
        Box::pin(Self::open_all(file, false))
    }

    /// The same, also if snapshots have brought them to other clusters.
    pub(crate) fn open_restored(file: &Path) -> BoxFuture<'_, Result<Self, Failure>> {
        Box::pin(Self::open_all(file, true))
    }

    async fn open_all(file: &Path, is_restored: bool) -> Result<Self, Failure> {
        let mut stores = Vec::new();
        for place in places(file)? {
            let opened = if is_restored {
                place.open_restored().await?
            } else {
                place.open_marked(Settings::default()).await?
            };
            stores.push((place, opened));
        }
        let given = stores.iter().map(|(place, opened)| Given {
            name: place.to_string(),
            store: opened.store(),
            secret: opened.secret().clone(),
        });
        let spread = Spread::open(given.collect(), steady()).await.map_err(|error| {
            let failure = Failure::new(Exit::StoreUnavailable, error.to_string());
            failure.with_hint(format!("`onlyonce doctor --store spread:{}`", file.display()))
        })?;
        let (mut members, mut warnings) = (Vec::new(), Vec::new());
        for (place, opened) in stores {
            warnings.extend_from_slice(opened.warnings());
            let seat = Seat::read(&*opened.store()).await?.ok_or_else(|| gone(&place))?;
            members.push((place, seat.own, opened));
        }
        Ok(Self { spread, members, warnings })
    }

    /// What every member's key ids are made with.
    pub(crate) fn secret(&self) -> &Secret {
        // There is one: none is refused at the door, as are different ones.
        self.members[0].2.secret()
    }

    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(crate) fn opened(&self) -> impl Iterator<Item = &Opened> {
        self.members.iter().map(|(.., opened)| opened)
    }

    /// Refuses a set whose keys are moving from member to member.
    pub(crate) fn refuse_moving(&self, place: &Place) -> Result<(), Failure> {
        let map = self.spread.map();
        if !map.is_moving() {
            return Ok(());
        }
        let text = format!("{place}: keys move from member to member; {}", said(&map));
        Err(Failure::new(Exit::Refused, text)
            .with_hint(format!("`onlyonce store rebalance --at-rest --store {place}` ends it")))
    }

    /// Those whose map is older than that of another one: a copy from before a move was put back,
    /// or the end of a move was not told to them.
    pub(crate) async fn behind(&self) -> Result<Vec<String>, Failure> {
        let (version, mut behind) = (self.spread.map().version(), Vec::new());
        for (place, _, opened) in &self.members {
            let seat = Seat::read(&*opened.store()).await?.ok_or_else(|| gone(place))?;
            if seat.map.version() < version {
                behind.push(place.to_string());
            }
        }
        Ok(behind)
    }

    /// Calls `tell` once if any of them is not written any more.
    pub(crate) fn on_poison(&self, tell: Box<dyn FnOnce(&str) + Send>) {
        let tell = Arc::new(Mutex::new(Some(tell)));
        for opened in self.opened() {
            let tell = Arc::clone(&tell);
            opened.on_poison(move |why| {
                let tell = tell.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(tell) = tell {
                    tell(why);
                }
            });
        }
    }
}

/// The stores that a file names: one a line, with empty lines and `#` for notes.
pub(crate) fn places(file: &Path) -> Result<Vec<Place>, Failure> {
    let name = file.display();
    let wrong = |text: String| Failure::new(Exit::Usage, text);
    let text = fs::read_to_string(file).map_err(|error| wrong(format!("{name}: {error}")))?;
    let mut places: Vec<Place> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |text: String| wrong(format!("{name}, line {number}: {text}"));
        let place: Place = line.parse().map_err(at)?;
        if matches!(place, Place::Journal(_) | Place::Spread(_)) {
            return Err(at("a set is of databases: a journal is for one process".to_owned()));
        }
        if places.first().is_some_and(|first| kind(first) != kind(&place)) {
            return Err(at(format!("a set has one kind of store, and this is {}", kind(&place))));
        }
        if places.contains(&place) {
            return Err(at(format!("{place} is named twice")));
        }
        places.push(place);
    }
    if places.is_empty() {
        return Err(wrong(format!("{name}: it names no store: a line for each is needed")));
    }
    if MEMBERS_MAX < places.len() {
        return Err(wrong(format!("{name}: a set has at most {MEMBERS_MAX} members")));
    }
    Ok(places)
}

/// All stores that a place names.
pub(crate) fn each(place: &Place) -> Result<Vec<Place>, Failure> {
    if let Place::Spread(file) = place { places(file) } else { Ok(vec![place.clone()]) }
}

/// The kind of a store, by the word that its address begins with.
const fn kind(place: &Place) -> &'static str {
    match place {
        Place::Journal(_) => "journal",
        Place::Sqlite(_) => "sqlite",
        Place::Postgres(_) => "postgres",
        Place::Mysql(_) => "mysql",
        Place::Redis(_) => "redis",
        Place::Etcd(_) => "etcd",
        Place::Spread(_) => "spread",
    }
}

/// Makes new stores, and a set of them. With a secret, which no other store has, what was cut off
/// is gone on with.
pub(crate) fn make<'a>(
    file: &'a Path,
    start: Start,
    secret: Option<&'a Secret>,
) -> BoxFuture<'a, Result<(), Failure>> {
    Box::pin(make_all(file, start, secret))
}

async fn make_all(file: &Path, start: Start, secret: Option<&Secret>) -> Result<(), Failure> {
    let places = places(file)?;
    let map = Map::first(places.len()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("a set has at most {MEMBERS_MAX} members"))
    })?;
    let mut standing = Vec::new();
    for (place, own) in places.iter().zip(map.members()) {
        let stands = stands(place).await?;
        if let Some(stands) = &stands
            && !is_begun(stands, secret, (*own, &map)).await?
        {
            let text = format!("{place}: there is a store already; it is left as it is");
            return Err(Failure::new(Exit::Refused, text).with_hint(format!(
                "`onlyonce store spread --store spread:{}` lets stores join",
                file.display()
            )));
        }
        standing.push(stands);
    }
    let mut set = standing.iter().flatten().find_map(|(_, seat)| Some(seat.as_ref()?.set));
    let mut secret = secret.cloned();
    for ((place, own), stands) in places.iter().zip(map.members()).zip(standing) {
        let (opened, seat) = match stands {
            Some(stands) => stands,
            None => {
                place.make(start, secret.as_ref()).await?;
                (place.open_marked(Settings::default()).await?, None)
            }
        };
        secret = Some(opened.secret().clone());
        let taken = match seat {
            Some(seat) => Ok(Some(seat)),
            None => Seat::take(&*opened.store(), *own, &map, set, now()).await,
        };
        opened.close();
        set = Some(taken?.ok_or_else(|| gone(place))?.set);
    }
    Ok(())
}

/// Whether a store was made for this seat of a set of this secret, and has no key.
async fn is_begun(
    (opened, seat): &Standing,
    secret: Option<&Secret>,
    (own, map): (Number, &Map),
) -> Result<bool, Failure> {
    if secret != Some(opened.secret()) {
        return Ok(false);
    }
    match seat {
        Some(seat) => Ok(seat.own == own && seat.map == *map),
        None => {
            let page = opened.store().list(Filter { limit: 1, ..Filter::default() }, None).await?;
            Ok(page.records.is_empty() && page.damaged.is_empty())
        }
    }
}

/// What stands at a place of the file: an open store and its seat, if it has one.
type Standing = (Opened, Option<Seat>);

/// The store there, or nothing if there is none.
async fn open_if_there(place: &Place) -> Result<Option<Opened>, Failure> {
    let missing = Found::Refused(OpenErrorKind::Missing);
    if place.doctor().await.iter().any(|check| check.found == missing) {
        return Ok(None);
    }
    place.open_marked(Settings::default()).await.map(Some)
}

async fn stands(place: &Place) -> Result<Option<Standing>, Failure> {
    let opened = match open_if_there(place).await? {
        Some(opened) => opened,
        None => return Ok(None),
    };
    let mark = Mark::read(&*opened.store()).await?;
    match mark {
        Some(mark) if mark.role != Role::Member => Err(mark.refusal(&place.to_string())),
        Some(_) | None => {
            let seat = Seat::read(&*opened.store()).await?;
            Ok(Some((opened, seat)))
        }
    }
}

/// The stores of a file, by what stands there.
#[derive(Default)]
struct Stands<'a> {
    /// Members of a set.
    seats: Vec<(&'a Place, Opened, Seat)>,
    /// Stores without a seat.
    plain: Vec<(&'a Place, Opened)>,
    /// No store is there.
    absent: Vec<&'a Place>,
}

impl Stands<'_> {
    /// The secret of all of them, and the number of their set if there is one. Whatever keeps them
    /// from being one set is told before anything is written: a seat is taken away by nobody.
    async fn check(&self, file: &Path) -> Result<(Secret, Option<Fence>), Failure> {
        let first = self.seats.first().map(|(_, opened, seat)| (opened, Some(seat.set)));
        let first = first.or_else(|| self.plain.first().map(|(_, opened)| (opened, None)));
        let Some((secret, set)) = first.map(|(opened, set)| (opened.secret().clone(), set)) else {
            let text = format!("{}: none of these stores is there", file.display());
            return Err(Failure::new(Exit::Refused, text)
                .with_hint(format!("`onlyonce store init --store spread:{}`", file.display())));
        };
        for (place, opened, seat) in &self.seats {
            if *opened.secret() != secret || Some(seat.set) != set {
                let text = format!("{place}: it is a member of another set");
                return Err(Failure::new(Exit::Refused, text));
            }
        }
        // Without a set, the first of them becomes its first member, with its keys.
        for (place, opened) in self.plain.iter().skip(usize::from(set.is_none())) {
            let page = opened.store().list(Filter { limit: 1, ..Filter::default() }, None).await?;
            let is_empty = page.records.is_empty() && page.damaged.is_empty();
            if !is_empty || *opened.secret() != secret {
                let text = format!("{place}: it is a store of its own, which cannot join a set");
                return Err(Failure::new(Exit::Refused, text).with_hint(
                    "a member is made where there is no store: the set's secret is its own",
                ));
            }
        }
        Ok((secret, set))
    }

    /// Makes the first of the stores the first member of a new set.
    async fn begin(&mut self) -> Result<(), Failure> {
        let (place, opened) = self.plain.remove(0);
        let map = Map::first(1).ok_or_else(|| gone(place))?;
        open::refuse(place).await?;
        let seat = Seat::take(&*opened.store(), 1, &map, None, now()).await?;
        // One may have used it between the look and the seat.
        open::refuse(place).await.map_err(|failure| {
            failure.with_hint("it is a member by now: end them before keys move away from it")
        })?;
        self.seats.push((place, opened, seat.ok_or_else(|| gone(place))?));
        Ok(())
    }
}

/// Lets every store of the file that is none yet join the set of the others, and makes a set of a
/// store that is none. No key moves by it. Returns how many have joined.
pub(crate) async fn join(file: &Path, at_rest: bool) -> Result<usize, Failure> {
    let places = places(file)?;
    let mut found = Stands::default();
    for place in &places {
        match stands(place).await? {
            None => found.absent.push(place),
            Some((opened, None)) => found.plain.push((place, opened)),
            Some((opened, Some(seat))) => found.seats.push((place, opened, seat)),
        }
    }
    if let (true, Some((place, _)), false) = (found.seats.is_empty(), found.plain.first(), at_rest)
    {
        let text = format!("{place}: other processes may have it open, as a store of its own");
        return Err(Failure::new(Exit::Usage, text)
            .with_hint("stop all of them, see to it that none starts, and say --at-rest"));
    }
    let (secret, set) = found.check(file).await?;
    if set.is_none() {
        found.begin().await?;
    }
    let Stands { seats, mut plain, absent } = found;
    let newest = seats.iter().max_by_key(|(.., seat)| seat.map.version());
    let (_, first, Seat { map, set, .. }) =
        newest.ok_or_else(|| Failure::new(Exit::Refused, "there is no member"))?;
    let floor = first.store().floor().await?;
    let known = seats.iter().flat_map(|(.., seat)| seat.map.all().into_iter().chain([seat.own]));
    let mut known: Vec<Number> = known.collect();
    let joined = plain.len() + absent.len();
    for place in absent {
        place.make(Start::Strict { floor }, Some(&secret)).await?;
        plain.push((place, place.open_marked(Settings::default()).await?));
    }
    for (place, opened) in &plain {
        let often =
            || Failure::new(Exit::Refused, "this set was changed too often to grow any more");
        let number = map.number_after(known.iter().copied()).ok_or_else(often)?;
        known.push(number);
        let taken = Seat::take(&*opened.store(), number, map, Some(*set), now()).await?;
        taken.ok_or_else(|| gone(place))?;
        opened.close();
    }
    seats.iter().for_each(|(_, opened, _)| opened.close());
    Ok(joined)
}

/// All checks of all members, and whether they belong together.
pub(crate) fn doctor(file: &Path) -> BoxFuture<'_, Vec<Check>> {
    Box::pin(look(file))
}

async fn look(file: &Path) -> Vec<Check> {
    let name = format!("spread:{}", file.display());
    let check = |found, says: String, why: String, fix: &str| {
        let (place, fix) = (name.clone(), fix.to_owned());
        Check { need: SET, place, says, found, why, fix, risk: None }
    };
    let refused = |failure: Failure| {
        let fix = failure.hint.unwrap_or_default();
        check(Found::Refused(OpenErrorKind::Refused), "no".to_owned(), failure.what, &fix)
    };
    let places = match places(file) {
        Ok(places) => places,
        Err(failure) => return vec![refused(failure)],
    };
    let mut checks = Vec::new();
    for place in places {
        checks.extend(place.doctor().await);
    }
    if checks.iter().any(|check| check.error().is_some()) {
        checks.push(check(Found::Unasked, String::new(), String::new(), ""));
        return checks;
    }
    checks.push(match Set::open(file).await {
        Ok(set) => {
            let says = said(&set.spread.map());
            set.opened().for_each(Opened::close);
            check(Found::Good, says, String::new(), "")
        }
        Err(failure) => refused(Failure { hint: None, ..failure }),
    });
    checks
}

/// A map, for people.
pub(crate) fn said(map: &Map) -> String {
    let list = |list: &[Number]| list.iter().map(Number::to_string).collect::<Vec<_>>().join(",");
    let moving = || format!(", moving from {}", list(map.from()));
    let moving = if map.is_moving() { moving() } else { String::new() };
    format!("map {}: members {}{moving}", map.version(), list(map.members()))
}

/// A clock that nobody sets.
fn steady() -> Steady {
    let runtime = TokioRuntime::new();
    Arc::new(move || runtime.steady())
}

fn gone(place: &Place) -> Failure {
    let text = format!("{place}: somebody else has changed it meanwhile");
    Failure::new(Exit::Refused, text)
}

/// How many records all of them have, or only those of outcomes that nobody knows.
pub(crate) fn count(set: &Set, unknown: bool) -> BoxFuture<'_, Result<u64, Failure>> {
    Box::pin(async move {
        let mut sum = 0_u64;
        for opened in set.opened() {
            let count = if unknown { opened.unknown().await? } else { opened.records().await? };
            // The seat is a record, and its outcome one that nobody knows.
            sum += count.saturating_sub(1);
        }
        Ok(sum)
    })
}
