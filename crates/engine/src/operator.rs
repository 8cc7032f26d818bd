//! What operators do to a record that needs no fence.

use onlyonce_core::{Command, KeyId, Policy};

use crate::act::Acted;
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Erases what a key was answered; that it was answered stays. Refused for a key that runs or
    /// is in doubt, and for one that was not answered.
    ///
    /// # Errors
    /// The store could not say; it may be repeated.
    pub async fn erase(
        &self,
        id: KeyId,
        policy: &Policy,
        by: &str,
        why: &str,
    ) -> Result<Acted, EngineError> {
        let (by, why) = (by.to_owned(), why.to_owned());
        self.command(id, policy, Command::Erase { by, why }).await
    }
}
