//! `onlyonce apply` at a cloud whose answers are held or cut, and which carries calls out late:
//! between it and a server of AWS's APIs, which makes a second thing whenever it is asked twice,
//! stands a relay that knows the one call that makes something. What was made is counted at the
//! server by other means.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use onlyonce_testbed::Moto;
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Folder, Ran, Running, onlyonce, until};

/// What is done to a call that makes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Pass,
    /// It is carried out, and the connection is cut.
    CutAnswer,
    /// It is carried out, and its answer waits until this changes.
    HoldAnswer,
    /// The connection is cut, and it is carried out when this changes.
    HoldCall,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    /// Calls that came here, and calls that were carried out.
    came: usize,
    done: usize,
}

/// The relay in front of a server.
#[derive(Clone)]
struct Cloud {
    address: SocketAddr,
    target: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Cloud {
    /// One that passes everything on; `action` is the call that makes something.
    fn before(target: SocketAddr, action: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State { manner: Manner::Pass, came: 0, done: 0 };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let cloud = Self { address: listener.local_addr().unwrap(), target, state };
        let serving = cloud.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                // A caller that goes away is no news.
                std::thread::spawn(move || serving.serve(&client, action));
            }
        });
        cloud
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    fn manner(&self, manner: Manner) {
        self.state().manner = manner;
        self.state.1.notify_all();
    }

    /// Waits until so many calls were carried out.
    fn await_done(&self, count: usize) {
        let state = self.state();
        drop(self.state.1.wait_while(state, |state| state.done < count).unwrap());
    }

    fn while_it_is(&self, manner: Manner) {
        let state = self.state();
        drop(self.state.1.wait_while(state, |state| state.manner == manner).unwrap());
    }

    /// One request of one connection.
    fn serve(&self, mut client: &TcpStream, action: &str) -> Option<()> {
        let request = request(client)?;
        let is_call = String::from_utf8_lossy(&request).contains(&format!("Action={action}&"));
        let manner = if is_call { self.state().manner } else { Manner::Pass };
        if is_call {
            self.state().came += 1;
        }
        if manner == Manner::HoldCall {
            client.shutdown(Shutdown::Both).ok()?;
            self.while_it_is(manner);
        }
        let mut server = TcpStream::connect(self.target).ok()?;
        server.write_all(&request).ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        if is_call {
            self.state().done += 1;
            self.state.1.notify_all();
        }
        match manner {
            Manner::Pass => {}
            Manner::HoldAnswer => self.while_it_is(manner),
            Manner::CutAnswer | Manner::HoldCall => return client.shutdown(Shutdown::Both).ok(),
        }
        client.write_all(&answer).ok()
    }
}

/// A request as it is to be sent on: with the word that its connection is for it alone.
fn request(client: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some([head.as_bytes(), b"connection: close\r\n\r\n", &body].concat())
}

/// The thing that is made.
#[derive(Clone, Copy, Debug)]
enum Thing {
    Group,
    Balancer,
}

impl Thing {
    const fn action(self) -> &'static str {
        match self {
            Self::Group => "CreateSecurityGroup",
            Self::Balancer => "CreateLoadBalancer",
        }
    }

    /// Counts those with this marker. Prints a number.
    const fn counted(self) -> &'static str {
        match self {
            Self::Group => {
                "print(len(ec2.describe_security_groups(Filters=[{'Name': 'tag:onlyonce', \
                 'Values': [marker]}])['SecurityGroups']))"
            }
            Self::Balancer => {
                "arns = [it['LoadBalancerArn'] for it in \
                 elb.describe_load_balancers()['LoadBalancers']]\n\
                 tags = [elb.describe_tags(ResourceArns=[arn])['TagDescriptions'][0]['Tags'] \
                 for arn in arns]\n\
                 print(sum(tag['Value'] == marker for some in tags for tag in some))"
            }
        }
    }
}

/// A plan of one thing, behind a relay of its own.
struct Site<'a> {
    moto: &'a Moto,
    cloud: Cloud,
    thing: Thing,
    folder: Folder,
    plan: String,
}

impl<'a> Site<'a> {
    /// `more` is what the plan says of its receiver.
    fn open(moto: &'a Moto, thing: Thing, name: &str, more: &str) -> Self {
        let cloud = Cloud::before(moto.address(), thing.action());
        let (what, inputs) = match thing {
            Thing::Group => {
                let vpc = moto.python("print(ec2.describe_vpcs()['Vpcs'][0]['VpcId'])");
                ("security-group", format!("vpc = \"{vpc}\", description = \"shop\""))
            }
            Thing::Balancer => {
                let subnets = moto.python(
                    "all = ec2.describe_subnets()['Subnets']\n\
                     print(','.join(it['SubnetId'] for it in all[:2]))",
                );
                ("load-balancer", format!("subnets = \"{subnets}\""))
            }
        };
        let folder = Folder::empty();
        let plan = format!(
            "name = \"{name}\"\n[[resource]]\nkey = \"web\"\nkind = \"aws\"\ntype = \"{what}\"\n\
             region = \"us-east-1\"\nendpoint = \"http://{}\"\ntimeout = \"2s\"\n\
             inputs = {{ {inputs} }}\nreceiver = {{ settle = \"100ms\", {more} }}\n",
            cloud.address
        );
        let plan = folder.write("shop.toml", &plan);
        Self { moto, cloud, thing, folder, plan }
    }

    fn start(&self, more: &[&str]) -> Running {
        let variables = [("AWS_ACCESS_KEY_ID", "shop"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let variables = variables.map(|(name, value)| (name, value.to_owned()));
        Running::start_with(["apply", &self.plan].iter().chain(more), variables)
    }

    fn apply(&self) -> Ran {
        self.start(&[]).ended()
    }

    fn status(&self) -> Value {
        let line = onlyonce(["resources", "status", &self.plan, "--json"]).done();
        serde_json::from_str(line.trim()).unwrap()
    }

    /// How many there are at the server.
    fn made(&self) -> usize {
        let marker = self.status()["marker"].as_str().unwrap().to_owned();
        let script = format!("marker = '{marker}'\n{}", self.thing.counted());
        self.moto.python(&script).parse().unwrap()
    }

    /// It is found by its marker, and there is one that was asked for once.
    #[track_caller]
    fn is_found(&self, what: &str) {
        let told = self.apply().done();
        assert!(told.contains("found by its marker"), "{what}: {told}");
        assert_eq!((self.made(), self.cloud.state().came), (1, 1), "{what}");
        assert!(self.folder.path("shop.onlyonce").is_dir());
    }
}

const THINGS: [Thing; 2] = [Thing::Group, Thing::Balancer];

/// Nothing in these tests waits for it.
const NEVER_LATE: &str = "late = \"1h\"";

#[test]
fn a_thing_whose_answer_is_held_or_cut_is_unknown_and_then_found_by_its_marker() {
    let moto = Moto::start();
    for thing in THINGS {
        for manner in [Manner::CutAnswer, Manner::HoldAnswer] {
            let what = format!("{thing:?} {manner:?}");
            let site = Site::open(&moto, thing, &format!("{thing:?}-{manner:?}"), NEVER_LATE);
            site.cloud.manner(manner);
            let told = site.apply();
            assert!(told.out.contains("unknown web: nobody knows"), "{what}: {told:?}");
            told.failed(5);
            assert_eq!(site.status()["state"], "unknown", "{what}");
            // The answer may still be held: who asks anew is answered.
            site.is_found(&what);
            site.cloud.manner(Manner::Pass);
            site.apply().done();
            assert_eq!(site.made(), 1, "{what}");
        }
    }
}

/// What was sent is carried out when it was given up already: before the next look, or after it.
#[test]
fn a_call_that_is_carried_out_late_makes_the_only_one_before_or_after_the_next_look() {
    let moto = Moto::start();
    for thing in THINGS {
        for looked in [false, true] {
            let what = format!("{thing:?}, looked for before: {looked}");
            let site = Site::open(&moto, thing, &format!("{thing:?}-late-{looked}"), NEVER_LATE);
            site.cloud.manner(Manner::HoldCall);
            site.apply().failed(5);
            assert_eq!(site.made(), 0, "{what}");
            if looked {
                let told = site.apply();
                assert!(told.out.contains("nothing is there"), "{what}: {told:?}");
                told.failed(5);
                assert_eq!(site.cloud.state().came, 1, "{what}: it was not asked for again");
            }
            site.cloud.manner(Manner::Pass);
            site.cloud.await_done(1);
            site.is_found(&what);
        }
    }
}

/// The answer comes while another apply looks on; or whoever waits for it is killed before.
#[test]
fn while_an_answer_is_held_a_second_apply_asks_for_nothing_and_one_that_is_killed_is_followed() {
    let moto = Moto::start();
    for thing in THINGS {
        for killed in [false, true] {
            let what = format!("{thing:?}, killed: {killed}");
            let site = Site::open(&moto, thing, &format!("{thing:?}-{killed}"), NEVER_LATE);
            // It is not given up meanwhile.
            let plan = fs::read_to_string(&site.plan).unwrap().replace("\"2s\"", "\"10m\"");
            fs::write(&site.plan, plan).unwrap();
            site.cloud.manner(Manner::HoldAnswer);
            let first = site.start(&[]);
            site.cloud.await_done(1);
            let second = site.start(&["--wait", "0s"]).ended();
            assert!(second.out.contains("creating web: another apply is at it"), "{second:?}");
            second.failed(7);
            if killed {
                first.signal(Signal::KILL);
                assert_eq!(first.ended().code, None);
                until("its holder is known to be gone", || {
                    (site.status()["state"] == "unknown").then_some(())
                });
                site.is_found(&what);
            } else {
                site.cloud.manner(Manner::Pass);
                let told = first.ended().done();
                assert!(told.contains(": created"), "{what}: {told}");
            }
            site.cloud.manner(Manner::Pass);
            site.apply().done();
            assert_eq!((site.made(), site.cloud.state().came), (1, 1), "{what}");
        }
    }
}
