//! `onlyonce apply` of a security group and a load balancer, at a server that makes a second one of
//! each whenever it is asked twice. The connection is cut at every point, answers are lost, and the
//! apply is killed: in the end there is one of each. They are counted there by other means.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use onlyonce_testbed::{Moto, Relay, Way};
use serde_json::Value;

/// Scenes that are played at once.
const TOGETHER: usize = 3;

/// What is done to an apply.
#[derive(Clone, Copy, Debug)]
enum Harm {
    None,
    /// Everything is cut after so many bytes this way.
    Cut(Way, usize),
    /// What goes this way is lost, and nobody says so.
    Lose(Way),
    /// It is killed after so many milliseconds.
    Kill(u64),
}

/// The account that things are made in.
struct Account {
    moto: Moto,
    vpc: String,
    subnets: String,
}

impl Account {
    fn open() -> Self {
        let moto = Moto::start();
        let vpc = moto.python("print(ec2.describe_vpcs()['Vpcs'][0]['VpcId'])");
        let subnets = "print(','.join(it['SubnetId'] for it in \
                       ec2.describe_subnets()['Subnets'][:2]))";
        let subnets = moto.python(subnets);
        Self { moto, vpc, subnets }
    }

    /// The values of all tags, of load balancers and of security groups.
    fn tags(&self) -> [Vec<String>; 2] {
        let script = "\
            lbs = elb.describe_load_balancers()['LoadBalancers']\n\
            arns = [it['LoadBalancerArn'] for it in lbs]\n\
            some = lambda at: elb.describe_tags(ResourceArns=arns[at:at + 20])['TagDescriptions']\n\
            lbs = [it['Tags'] for at in range(0, len(arns), 20) for it in some(at)]\n\
            sgs = [it.get('Tags', []) for it in ec2.describe_security_groups()['SecurityGroups']]\n\
            values = lambda all: [tag['Value'] for tags in all for tag in tags]\n\
            print(json.dumps([values(lbs), values(sgs)]))";
        serde_json::from_str(&self.moto.python(script)).unwrap()
    }
}

/// How many of these there are.
fn count(tags: &[String], marker: &str) -> usize {
    tags.iter().filter(|it| *it == marker).count()
}

struct Site {
    folder: tempfile::TempDir,
    relay: Relay,
}

impl Site {
    fn open(account: &Account, name: &str) -> Self {
        let site =
            Self { folder: tempfile::tempdir().unwrap(), relay: Relay::to(account.moto.address()) };
        let common = format!(
            "kind = \"aws\"\nregion = \"us-east-1\"\nendpoint = \"http://{}\"\ntimeout = \"5s\"\n\
             ready_within = \"1s\"\n\
             receiver = {{ settle = \"20ms\", late = \"2s\" }}\n",
            site.relay.address()
        );
        let plan = format!(
            "name = \"{name}\"\n\
             [[resource]]\nkey = \"group\"\ntype = \"security-group\"\n{common}\
             inputs = {{ vpc = \"{}\", description = \"a & b\" }}\n\
             [[resource]]\nkey = \"web\"\ntype = \"load-balancer\"\n{common}\
             inputs = {{ subnets = \"{}\", security_groups = \"${{group.id}}\", \
             scheme = \"internal\" }}\n",
            account.vpc, account.subnets
        );
        fs::write(site.plan(), plan).unwrap();
        site
    }

    fn plan(&self) -> PathBuf {
        self.folder.path().join("shop.toml")
    }

    fn command(&self, command: &str) -> Command {
        let mut onlyonce = Command::new(env!("CARGO_BIN_EXE_onlyonce"));
        onlyonce.args(command.split(' ')).arg(self.plan());
        onlyonce.env("AWS_ACCESS_KEY_ID", "shop").env("AWS_SECRET_ACCESS_KEY", "secret");
        onlyonce.env_remove("AWS_SESSION_TOKEN").stdin(Stdio::null());
        onlyonce
    }

    fn apply(&self) -> Output {
        self.command("apply").output().unwrap()
    }

    /// Applies it under this harm; how it ended, if it was not killed.
    fn harmed(&self, harm: Harm) -> Option<i32> {
        match harm {
            Harm::None => {}
            Harm::Cut(way, bytes) => self.relay.cut_after(way, bytes),
            Harm::Lose(way) => self.relay.lose(way),
            Harm::Kill(after) => {
                let mut command = self.command("apply");
                let mut child =
                    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                std::thread::sleep(Duration::from_millis(after));
                child.kill().unwrap();
                return child.wait().unwrap().code();
            }
        }
        let ended = self.apply();
        self.relay.mend();
        ended.status.code()
    }

    /// Applies it until it is quiet. What was sent before may come late.
    fn until_quiet(&self) {
        for _ in 0..40 {
            let ended = self.apply();
            if ended.status.success() {
                return;
            }
            let code = ended.status.code();
            assert!(matches!(code, Some(5 | 7)), "{}", String::from_utf8_lossy(&ended.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("it does not become quiet: {}", String::from_utf8_lossy(&self.apply().stdout));
    }

    /// The markers of the group and of the load balancer.
    fn markers(&self) -> [String; 2] {
        let status = self.command("resources status --json").output().unwrap();
        let text = String::from_utf8(status.stdout).unwrap();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let all: Vec<String> = all.map(|it| it["marker"].as_str().unwrap().to_owned()).collect();
        all.try_into().unwrap()
    }
}

#[test]
fn wherever_an_apply_is_cut_off_there_is_one_load_balancer_and_one_group() {
    let account = Account::open();
    let whole = Site::open(&account, "whole");
    assert_eq!(whole.harmed(Harm::None), Some(0));
    let bytes = |way| whole.relay.passed(way);
    let mut harms = vec![Harm::Lose(Way::ToServer), Harm::Lose(Way::ToClient)];
    for way in [Way::ToServer, Way::ToClient] {
        let step = bytes(way) / 7;
        harms.extend((1..=bytes(way)).step_by(step).map(|at| Harm::Cut(way, at)));
    }
    harms.extend((1..8).map(|step| Harm::Kill(20 * step)));
    let left = Mutex::new(harms.into_iter().enumerate().collect::<Vec<_>>());
    let ends = Mutex::new(Vec::new());
    let markers = Mutex::new(vec![("not harmed".to_owned(), whole.markers())]);
    std::thread::scope(|threads| {
        for _ in 0..TOGETHER {
            threads.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some((number, harm)) = next else { break };
                    let site = Site::open(&account, &format!("shop-{number}"));
                    ends.lock().unwrap().push(site.harmed(harm));
                    site.until_quiet();
                    markers.lock().unwrap().push((format!("{harm:?}"), site.markers()));
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    assert!(ends.contains(&Some(5)), "some end where nobody knows what was made: {ends:?}");
    assert!(ends.contains(&None), "some are killed: {ends:?}");
    let [balancers, groups] = account.tags();
    for (harm, [group, web]) in markers.into_inner().unwrap() {
        assert_eq!((count(&balancers, &web), count(&groups, &web)), (1, 0), "{harm}");
        assert_eq!((count(&balancers, &group), count(&groups, &group)), (0, 1), "{harm}");
    }
}

#[test]
fn one_of_the_same_name_is_not_adopted_and_two_of_ours_are_told_and_not_deleted() {
    let account = Account::open();
    let site = Site::open(&account, "shop");
    let [_, marker] = site.markers();
    let name = format!("web-{}", &marker["onlyonce-".len()..][..12]);
    let make = |tags: &str| {
        let subnets = account.subnets.split(',').map(|it| format!("'{it}'"));
        let subnets = subnets.collect::<Vec<_>>().join(",");
        account.moto.python(&format!(
            "print(elb.create_load_balancer(Name='{name}', Subnets=[{subnets}], Tags=[{tags}])\
             ['LoadBalancers'][0]['LoadBalancerArn'])"
        ))
    };
    let theirs = make("{'Key': 'owner', 'Value': 'bob'}");
    let ended = site.apply();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{told}");
    assert!(told.contains("conflict web: what is there is not ours"), "{told}");
    assert!(told.contains(&theirs), "{told}");

    let ours = format!("{{'Key': 'onlyonce', 'Value': '{marker}'}}");
    let both = [make(&ours), make(&ours)];
    let ended = site.apply();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{told}");
    assert!(told.contains("duplicate web: more than one is there"), "{told}");
    assert!(both.iter().all(|arn| told.contains(arn)), "{told}");
    let [balancers, _] = account.tags();
    assert_eq!((count(&balancers, &marker), count(&balancers, "bob")), (2, 1), "none is deleted");
}
