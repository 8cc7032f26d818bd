//! The servers and the programs: a broker, a database, two warehouses, a shop and a record service.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use onlyonce_testbed::{Port, Postgres, RabbitMq, Relay, Server, rabbitmq_url, until};
use tempfile::TempDir;

use crate::printer::Printer;

/// What lies in stock: something that is always there, and something that soon is not.
pub(crate) const STOCK: [(&str, u32); 2] = [("blender", 1_000_000), ("rarity", 20)];
/// Which programs there are, by their place.
pub(crate) const WAREHOUSES: [usize; 2] = [0, 1];
pub(crate) const SHOP: usize = 2;
pub(crate) const RECORDS: usize = 3;
/// Debian's, which has the library for the broker.
const PYTHON: &str = "/usr/bin/python3";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A program that can be killed and started again as it was.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    server: Option<Server>,
}

impl Program {
    fn new(name: &'static str, folder: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let log = folder.join(format!("{name}.log"));
        let mut program = Self { name, arguments, log, server: None };
        program.restart();
        program
    }

    /// Killed without a word, if it still lives, and started.
    pub(crate) fn restart(&mut self) {
        self.server = None;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.arguments);
        command.env("PYTHONPATH", repo().join("clients/python/src"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        self.server = Some(Server::start(command, &self.log));
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

/// All there is, in the order in which it ends.
pub(crate) struct World {
    pub(crate) programs: Vec<Program>,
    pub(crate) broker_relay: Relay,
    pub(crate) database_relay: Relay,
    pub(crate) counter_relay: Relay,
    pub(crate) broker: RabbitMq,
    pub(crate) database: Postgres,
    pub(crate) printer: Printer,
    shop: Port,
    _others: [Port; 3],
    _folder: TempDir,
}

fn repo() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

impl World {
    /// `warehouse` is the program; `onlyonce` lies beside it.
    pub(crate) fn start(warehouse: &Path, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (broker, database) = (RabbitMq::start(), stocked());
        let broker_relay = Relay::to(broker.address());
        let database_relay = Relay::to(database.address());
        let counters = [Port::free(), Port::free()];
        let counter_relay = Relay::to(counters[0].address());
        let (shop, records) = (Port::free(), Port::free());
        let printer = Printer::start(seed);

        let onlyonce = warehouse.with_file_name("onlyonce");
        let journal = format!("journal:{}", folder.path().join("journal").display());
        init(&onlyonce, &database.url("postgres"));
        init(&onlyonce, &journal);
        let token = token_in(folder.path());
        let text = |path: &Path| path.display().to_string();
        let (amqp, token) = (rabbitmq_url(broker_relay.address()), text(&token));
        let url = format!("postgres://postgres@{}/postgres", database_relay.address());

        let mut programs = Vec::new();
        for (name, port) in ["warehouse-0", "warehouse-1"].into_iter().zip(&counters) {
            let beat = format!("{amqp}?heartbeat=5");
            let (program, listen) = (text(warehouse), port.address().to_string());
            let arguments = [&*program, "--amqp", &beat, "--database", &url, "--listen", &listen];
            programs.push(Program::new(name, folder.path(), &arguments));
        }
        let script = text(&repo().join("examples/orders/shop/shop.py"));
        let book = text(&folder.path().join("book"));
        let [first, second] =
            [counter_relay.address(), counters[1].address()].map(|it| format!("http://{it}"));
        let service = format!("http://{}", records.address());
        let (port, printing) = (shop.number().to_string(), printer.url());
        let options = [
            ("--book", book.as_str()),
            ("--listen", &port),
            ("--amqp", &amqp),
            ("--warehouse", &first),
            ("--warehouse", &second),
            ("--records", &service),
            ("--token", &token),
            ("--printer", &printing),
            ("--copies", "2"),
        ];
        let options = options.into_iter().flat_map(|(name, value)| [name, value]);
        let arguments: Vec<&str> = [PYTHON, script.as_str()].into_iter().chain(options).collect();
        programs.push(Program::new("shop", folder.path(), &arguments));
        let (onlyonce, listen) = (text(&onlyonce), records.address().to_string());
        let arguments =
            [&*onlyonce, "serve", "--listen", &listen, "--token-file", &token, "--store", &journal];
        programs.push(Program::new("records", folder.path(), &arguments));

        let [one, two] = counters;
        Self {
            programs,
            broker_relay,
            database_relay,
            counter_relay,
            broker,
            database,
            printer,
            shop,
            _others: [one, two, records],
            _folder: folder,
        }
    }

    /// Where customers come.
    pub(crate) fn shop(&self) -> SocketAddr {
        self.shop.address()
    }
}

fn stocked() -> Postgres {
    let database = Postgres::start();
    database.sql("postgres", include_str!("../../tables.sql"));
    for (item, free) in STOCK {
        database.sql("postgres", &format!("INSERT INTO stock VALUES ('{item}', {free})"));
    }
    database
}

fn token_in(folder: &Path) -> PathBuf {
    let token = folder.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    token
}

fn init(onlyonce: &Path, store: &str) {
    let mut command = Command::new(onlyonce);
    command.args(["store", "init", "--first", "--store", store]);
    let ended = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}: build it by `cargo build --bin onlyonce`", onlyonce.display())
    });
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {said}");
}

/// Waits until the shop answers.
pub(crate) fn await_shop(world: &World) {
    until("the shop answers", || crate::http::ask(world.shop(), "GET /orders", ""));
}
