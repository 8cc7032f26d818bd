//! A transaction as one text: sent at once, and carried out whole or not at all.

use std::time::Duration;

use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Error, Row};
use onlyonce_store::StoreError;

use crate::error::{DEADLOCK, LATE, refused, text, unknown};
use crate::session::Session;

/// How long after it was sent a transaction may still be committed, by the server's clock. A text
/// may lie in a socket for minutes, because the server stands still or nothing gets through, and
/// its caller has given up by then.
const COMMIT_WITHIN: Duration = Duration::from_secs(8);

/// The statements of a transaction.
pub(crate) struct Script {
    sql: String,
    statements: usize,
    /// The place of a demand that they make of each other.
    demand: Option<usize>,
}

/// What the server says to a statement.
pub(crate) struct Answer {
    /// How many rows it has made, changed or deleted.
    pub(crate) affected: u64,
    pub(crate) rows: Vec<Row>,
}

/// Why it was not carried out, or that nobody knows.
pub(crate) struct Stopped {
    pub(crate) error: StoreError,
    /// The server has ended it because another one was in the way; once more may do.
    pub(crate) again: bool,
    /// What the transaction demanded was not so.
    pub(crate) unmet: bool,
    /// Whether the session can be used further.
    pub(crate) goes_on: bool,
}

impl Stopped {
    /// Of a session that cannot be used further.
    pub(crate) const fn lost(error: StoreError) -> Self {
        Self { error, again: false, unmet: false, goes_on: false }
    }
}

/// A statement that the server refuses unless the condition holds: several values are one too many.
fn only_if(condition: &str) -> String {
    format!("SELECT IF({condition}, 1, (SELECT 1 UNION ALL SELECT 2))")
}

impl Script {
    pub(crate) fn begin() -> Self {
        // Locks are taken by statements alone, and released by the commit.
        Self { sql: "START TRANSACTION READ WRITE".to_owned(), statements: 1, demand: None }
    }

    /// Adds a statement; its answer will be at this place.
    pub(crate) fn add(&mut self, statement: &str) -> usize {
        self.sql.push_str(";\n");
        self.sql.push_str(statement);
        self.statements += 1;
        self.statements - 1
    }

    /// Adds a condition: unless it holds when the server comes to it, nothing is carried out.
    pub(crate) fn demand(&mut self, condition: &str) {
        self.demand = Some(self.add(&only_if(condition)));
    }

    /// Sends it, and the commit. The server stops at the first statement that fails, so what
    /// follows it, the commit at last, is not carried out.
    ///
    /// # Errors
    /// Of [`onlyonce_store::StoreErrorKind::Unknown`] if nobody knows; of any other kind nothing
    /// was changed.
    pub(crate) async fn commit(mut self, session: &mut Session) -> Result<Vec<Answer>, Stopped> {
        let until = session.server_time_after(COMMIT_WITHIN);
        let late = self.add(&only_if(&format!("UNIX_TIMESTAMP(SYSDATE(3)) * 1000 < {until}")));
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
            if flags.is_some_and(|flags| !flags.intersects(open)) {
                return Ok(answers);
            }
            let error = unknown(place, "its answers do not fit what it was asked");
            return Err(Stopped::lost(error));
        };
        let Error::Server(said) = &error else {
            let error = unknown(place, &text(&error));
            return Err(Stopped::lost(error));
        };
        // An error comes where the answer before it ends. What follows the bound is the commit, of
        // which an error says nothing, but for one: it is rolled back then.
        let at_commit = late <= answers.len() && ![LATE, DEADLOCK].contains(&said.code);
        if at_commit {
            let error = unknown(place, &text(&error));
            return Err(Stopped::lost(error));
        }
        let unmet = said.code == LATE && self.demand == Some(answers.len());
        let (error, again) = (refused(place, said, unmet), said.code == DEADLOCK);
        let goes_on = session.conn.query_drop("ROLLBACK").await.is_ok();
        Err(Stopped { error, again, unmet, goes_on })
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
