//! PgBouncer: a pooler before a PostgreSQL server, which gives out connections by the transaction.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::Postgres;
use crate::port::Port;
use crate::postgres::{owned, server_user};
use crate::process::Server;
use crate::program::find;

/// A pooler with fewer connections than its clients have. Whoever asks is let in.
#[derive(Debug)]
pub struct PgBouncer {
    port: Port,
    _folder: TempDir,
    _server: Server,
}

impl PgBouncer {
    /// One before this server.
    pub fn before(server: &Postgres) -> Self {
        let (port, folder) = (Port::free(), tempfile::tempdir().unwrap());
        let place = folder.path().display();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir = {place}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n",
            server.port(),
            port.number()
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        if let Some((user, group)) = server_user() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let program = find("pgbouncer", "ONLYONCE_TEST_PGBOUNCER", &["/usr/sbin"]);
        let mut command: Command = owned(&program);
        command.arg(&file).current_dir(folder.path());
        let log = folder.path().join("pgbouncer.log");
        let mut server = Server::start(command, &log);
        server.await_ready(&log, || std::net::TcpStream::connect(port.address()).is_ok());
        Self { port, _folder: folder, _server: server }
    }

    /// The address of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number())
    }
}
