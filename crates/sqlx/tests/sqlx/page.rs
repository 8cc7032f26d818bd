//! The example of `docs/sqlx.md`, as it stands there.

use onlyonce_core::{Key, Policy, Reply, Scope};
use onlyonce_sqlx::{Claimed, Request};

type Failure = Box<dyn std::error::Error>;

pub(crate) async fn order(pool: &sqlx::PgPool) -> Result<Reply, Failure> {
    let (scope, key) = (Scope::new("orders")?, Key::new("7829")?);
    let request = Request { scope: &scope, key: &key, content: b"one blender" };

    let mut tx = pool.begin().await?;
    let reply = match onlyonce_sqlx::claim(&mut tx, request, &Policy::default()).await? {
        Claimed::Granted(granted) => {
            let sell = sqlx::query("UPDATE stock SET free = free - 1 WHERE item = 'blender'");
            sell.execute(&mut *tx).await?;
            let reply = Reply::kept(201, "order confirmed, 7829");
            granted.complete(&mut tx, &reply).await?;
            reply
        }
        Claimed::Replay(reply) => reply,
        Claimed::Refused(why) => return Err(format!("not run: {why:?}").into()),
    };
    onlyonce_sqlx::commit(tx).await?;
    Ok(reply)
}
