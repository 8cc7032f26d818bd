//! A transaction as one text: sent at once, and carried out whole or not at all.

use std::time::Duration;

use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Error, Row};
use onlyonce_store::StoreError;

use crate::error::{DEADLOCK, LATE, LOCKED, refused, text, unknown};
use crate::session::Session;

/// How long after it was sent a transaction may still be committed, by the server's clock. A text
/// may lie in a socket for minutes, because the server stands still or nothing gets through, and
/// its caller has given up by then.
const COMMIT_WITHIN: Duration = Duration::from_secs(8);

/// Why nobody knows what a transaction did whose end was not noted.
const UNNOTED: &str = "a row of onlyonce_revisions is missing, so nothing was demanded of it: \
                       `onlyonce store migrate` makes it again";

/// The statements of a transaction.
pub(crate) struct Script {
    sql: String,
    statements: usize,
    note: Option<Note>,
}

/// Whether the transaction goes on: then it was not committed.
async fn is_open(session: &mut Session) -> bool {
    let asked = session.conn.query_drop("DO 0").await;
    let flags = session.conn.last_ok_packet().map(|ok| ok.status_flags());
    asked.is_ok() && flags.is_some_and(|it| it.contains(StatusFlags::SERVER_STATUS_IN_TRANS))
}

/// What the last statement before the commit notes of what the one before it has written.
pub(crate) struct Note {
    /// The row in which it is noted.
    pub(crate) slot: u8,
    /// The revision that is noted, as an expression.
    pub(crate) revision: String,
    /// Unless this holds too, nothing is carried out.
    pub(crate) demand: Option<String>,
}

/// What the server says to a statement.
pub(crate) struct Answer {
    /// How many rows it has made, changed or deleted.
    pub(crate) affected: u64,
    pub(crate) rows: Vec<Row>,
}

/// What has stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Others, which the server let go first: once more may do.
    Others,
    /// Others, for which it waited as long as it may.
    Wait,
    /// What it demanded of its statements was not so.
    Demand,
    Else,
}

/// Why it was not carried out, or that nobody knows.
pub(crate) struct Stopped {
    pub(crate) error: StoreError,
    pub(crate) by: By,
    /// Whether the session can be used further.
    pub(crate) goes_on: bool,
}

impl Stopped {
    /// Of a session that cannot be used further.
    pub(crate) const fn lost(error: StoreError) -> Self {
        Self { error, by: By::Else, goes_on: false }
    }
}

/// A value that the server refuses to find: several where there must be one.
pub(crate) const NEVER: &str = "(SELECT 1 UNION ALL SELECT 2)";

impl Note {
    /// Every commit changes the row, so an answer that tells of none shows that there is no row.
    fn statement(&self, in_time: &str) -> String {
        let Self { slot, revision, demand } = self;
        let demand = demand.as_ref().map(|demand| format!("{demand} AND ")).unwrap_or_default();
        format!(
            "UPDATE onlyonce_revisions SET syncs = syncs + 1, \
             revision = IF({demand}{in_time}, GREATEST(revision, {revision}), {NEVER}) \
             WHERE slot = {slot}"
        )
    }
}

impl Script {
    pub(crate) fn begin() -> Self {
        // Locks are taken by statements alone, and released by the commit.
        Self { sql: "START TRANSACTION READ WRITE".to_owned(), statements: 1, note: None }
    }

    /// Adds a statement; its answer will be at this place.
    pub(crate) fn add(&mut self, statement: &str) -> usize {
        self.sql.push_str(";\n");
        self.sql.push_str(statement);
        self.statements += 1;
        self.statements - 1
    }

    /// Has it note something at its end.
    pub(crate) fn note(&mut self, note: Note) {
        self.note = Some(note);
    }

    /// Sends it, and the commit. The server stops at the first statement that fails, so what
    /// follows it, the commit at last, is not carried out.
    ///
    /// # Errors
    /// Of [`onlyonce_store::StoreErrorKind::Unknown`] if nobody knows; of any other kind nothing
    /// was changed.
    pub(crate) async fn commit(mut self, session: &mut Session) -> Result<Vec<Answer>, Stopped> {
        let until = session.server_time_after(COMMIT_WITHIN);
        let in_time = format!("UNIX_TIMESTAMP(SYSDATE(3)) * 1000 < {until}");
        let note = self.note.take();
        // The bound is what the server comes to last. Where something is noted it stands in that.
        let bound = match &note {
            Some(note) => self.add(&note.statement(&in_time)),
            None => self.add(&format!("SELECT IF({in_time}, 1, {NEVER})")),
        };
        self.add("COMMIT");
        let mut answers = Vec::with_capacity(self.statements);
        let ended = self.carry_out(session, &mut answers).await;
        session.touch();
        let place = &session.place;
        let Err(error) = ended else {
            // Only the end of the transaction proves that the commit was come to.
            let flags = session.conn.last_ok_packet().map(|ok| ok.status_flags());
            let open =
                StatusFlags::SERVER_STATUS_IN_TRANS | StatusFlags::SERVER_MORE_RESULTS_EXISTS;
            let is_over = flags.is_some_and(|flags| !flags.intersects(open));
            let error = match answers.get(bound) {
                // Neither bound nor demand was looked at.
                Some(answer) if note.is_some() && answer.affected != 1 => UNNOTED,
                Some(_) if is_over => return Ok(answers),
                Some(_) | None => "its answers do not fit what it was asked",
            };
            return Err(Stopped::lost(unknown(place, error)));
        };
        let Error::Server(said) = &error else {
            let error = unknown(place, &text(&error));
            return Err(Stopped::lost(error));
        };
        // An error comes where the answer before it ends. What follows the bound is the commit, of
        // which an error says nothing, but for one: it is rolled back then.
        let at_commit = bound <= answers.len() && ![LATE, DEADLOCK].contains(&said.code);
        if at_commit && !is_open(session).await {
            let error = unknown(&session.place, &text(&error));
            return Err(Stopped::lost(error));
        }
        let in_time = session.server_time_after(Duration::ZERO) < until;
        let by = match said.code {
            DEADLOCK => By::Others,
            LOCKED => By::Wait,
            LATE if in_time && note.is_some_and(|note| note.demand.is_some()) => By::Demand,
            _ => By::Else,
        };
        let error = refused(&session.place, said, by == By::Demand);
        let rolled_back = session.conn.query_drop("ROLLBACK").await.is_ok();
        // A session that takes too late for the time asks for the server's anew.
        let goes_on = rolled_back && (by == By::Demand || said.code != LATE);
        Err(Stopped { error, by, goes_on })
    }

    async fn carry_out(
        &self,
        session: &mut Session,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Error> {
        let mut result = session.conn.query_iter(self.sql.as_str()).await?;
        for _ in 0..self.statements {
            let affected = result.affected_rows();
            let rows = result.collect::<Row>().await?;
            answers.push(Answer { affected, rows });
        }
        Ok(())
    }
}
