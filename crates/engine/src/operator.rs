//! What operators do to a record: they settle what nobody knows, and erase.

use onlyonce_core::{Command, Fence, KeyId, Policy, Verdict};

use crate::act::Acted;
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Settles an unknown outcome with what somebody found out about the claim `fence`.
    ///
    /// # Errors
    /// The store could not say; the verdict may be repeated.
    pub async fn resolve(
        &self,
        id: KeyId,
        policy: &Policy,
        fence: Fence,
        verdict: Verdict,
        by: &str,
        why: &str,
    ) -> Result<Acted, EngineError> {
        let (by, why) = (by.to_owned(), why.to_owned());
        let command = Command::Resolve { fence, verdict, by, why };
        self.command(id, policy, command).await
    }

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
