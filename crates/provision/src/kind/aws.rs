//! A security group or a load balancer of AWS, through its query APIs (EC2 2016-11-15, Elastic Load
//! Balancing v2 2015-12-01). Its mark is a tag that is a part of the call that creates it.
//!
//! AWS gives the name of a load balancer once in an account and region, and that of a group once in
//! a network. That alone is not relied upon: a name says nothing of whose a thing is, and what
//! speaks these APIs need not be AWS. So everything with the name or the tag is looked at.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use onlyonce_ask::aws::{Credentials, Target, signed};
use onlyonce_core::Cause;
use roxmltree::{Document, Node};

use super::http::environment;
use super::{Call, Made, Readiness, Seen, id, last_line};
use crate::client::{self, Answer, Failed, encoded};
use crate::template::Template;

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The tag's key; its value is the marker.
const TAG: &str = "onlyonce";
/// How many load balancers' tags can be asked for at once (`DescribeTags`).
const TAGS_AT_ONCE: usize = 20;
/// The most pages that are read of one answer.
const PAGES_MAX: usize = 1_000;

/// A thing of AWS. What it is made of are its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aws {
    pub(crate) what: Thing,
    pub(crate) region: String,
    /// Where the APIs are, if not at AWS.
    pub(crate) endpoint: Option<Template>,
    pub(crate) within: Duration,
}

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    SecurityGroup,
    LoadBalancer,
}

/// What an input becomes in the call that creates: its name there, and whether it is a list.
struct Input {
    name: &'static str,
    parameter: &'static str,
    is_list: bool,
    is_needed: bool,
}

const fn input(name: &'static str, parameter: &'static str) -> Input {
    Input { name, parameter, is_list: false, is_needed: false }
}

const GROUP: [Input; 2] = [
    Input { is_needed: true, ..input("description", "GroupDescription") },
    Input { is_needed: true, ..input("vpc", "VpcId") },
];
const BALANCER: [Input; 5] = [
    Input { is_list: true, is_needed: true, ..input("subnets", "Subnets") },
    Input { is_list: true, ..input("security_groups", "SecurityGroups") },
    input("scheme", "Scheme"),
    input("type", "Type"),
    input("address_type", "IpAddressType"),
];

impl Thing {
    const fn service(self) -> &'static str {
        match self {
            Self::SecurityGroup => "ec2",
            Self::LoadBalancer => "elasticloadbalancing",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::SecurityGroup => "2016-11-15",
            Self::LoadBalancer => "2015-12-01",
        }
    }

    const fn inputs(self) -> &'static [Input] {
        match self {
            Self::SecurityGroup => &GROUP,
            Self::LoadBalancer => &BALANCER,
        }
    }

    /// What is wrong with the inputs of these names, in words for who wrote them.
    pub(crate) fn wrong<'a>(self, names: impl Iterator<Item = &'a str>) -> Option<String> {
        let names: BTreeSet<&str> = names.collect();
        let known = self.inputs();
        if let Some(name) = names.iter().find(|name| known.iter().all(|it| it.name != **name)) {
            let all = known.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
            return Some(format!("`inputs.{name}` is not known here; there are {all}"));
        }
        let missing = known.iter().find(|it| it.is_needed && !names.contains(it.name));
        missing.map(|it| format!("`inputs.{}` is missing", it.name))
    }
}

/// What is said to an API: names and values.
type Parameters = Vec<(String, String)>;

fn parameter(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}

/// Why there is nothing to read.
enum NoAnswer {
    Failed(Failed),
    /// The API's error: the status, its code and its text.
    Error(u16, String, String),
    /// Something else.
    Unread(u16, String),
}

impl Aws {
    pub(super) async fn check(&self, call: &Call<'_>) -> Seen {
        let seen = match self.what {
            Thing::SecurityGroup => self.groups(call).await,
            Thing::LoadBalancer => self.balancers(call).await,
        };
        seen.unwrap_or_else(|failed| Seen::CannotTell(failed.told()))
    }

    pub(super) async fn create(&self, call: &Call<'_>) -> Made {
        let name = call.identity.name.as_str();
        let tag = [("Key", TAG), ("Value", call.identity.marker.as_str())];
        let (action, at, path) = match self.what {
            Thing::SecurityGroup => ("CreateSecurityGroup", "TagSpecification.1.Tag.1.", "groupId"),
            Thing::LoadBalancer => ("CreateLoadBalancer", "Tags.member.1.", "LoadBalancerArn"),
        };
        let mut parameters: Parameters =
            tag.iter().map(|(field, value)| parameter(format!("{at}{field}"), *value)).collect();
        match self.what {
            Thing::SecurityGroup => {
                parameters.push(parameter("GroupName", name));
                let resource = "TagSpecification.1.ResourceType";
                parameters.push(parameter(resource, "security-group"));
            }
            Thing::LoadBalancer => parameters.push(parameter("Name", name)),
        }
        for input in self.what.inputs() {
            let Some(value) = call.inputs.get(input.name) else { continue };
            if !input.is_list {
                parameters.push(parameter(input.parameter, value));
                continue;
            }
            for (at, one) in value.split(',').map(str::trim).filter(|it| !it.is_empty()).enumerate()
            {
                parameters.push(parameter(format!("{}.member.{}", input.parameter, at + 1), one));
            }
        }
        match self.ask(action, parameters, call).await {
            Ok(text) => match first(&text, path).as_deref().and_then(id) {
                Some(id) => Made::Created(id),
                None => {
                    let text = format!("no {path} in the answer; {}", last_line(&text));
                    Made::Unknown(Cause::AnswerCut, text)
                }
            },
            Err(failed) => failed.made(),
        }
    }

    pub(super) async fn ready(&self, call: &Call<'_>) -> Readiness {
        let (Thing::LoadBalancer, Some(id)) = (self.what, call.id) else { return Readiness::Ready };
        let asked = vec![parameter("LoadBalancerArns.member.1", id)];
        match self.ask("DescribeLoadBalancers", asked, call).await {
            Ok(text) => match first(&text, "Code").as_deref() {
                Some("active") => Readiness::Ready,
                Some("failed") => Readiness::Failed("failed".into()),
                Some(other) => Readiness::NotYet(other.to_owned()),
                None => Readiness::NotYet("the answer says no state".into()),
            },
            Err(failed) => Readiness::NotYet(failed.told()),
        }
    }

    /// Those with the tag, and those with the name in the same network.
    async fn groups(&self, call: &Call<'_>) -> Result<Seen, NoAnswer> {
        let filters = |pairs: [(&str, &str); 2]| -> Parameters {
            let numbered = pairs.iter().filter(|(name, _)| !name.is_empty()).zip(1..);
            numbered
                .flat_map(|((name, value), at)| {
                    [
                        parameter(format!("Filter.{at}.Name"), *name),
                        parameter(format!("Filter.{at}.Value.1"), *value),
                    ]
                })
                .collect()
        };
        let (tag, vpc) =
            (format!("tag:{TAG}"), call.inputs.get("vpc").cloned().unwrap_or_default());
        let ours = filters([(&tag, &call.identity.marker), ("", "")]);
        let ours = self.all("DescribeSecurityGroups", ours, call, "groupId").await?;
        let named = filters([("group-name", &call.identity.name), ("vpc-id", &vpc)]);
        let named = self.all("DescribeSecurityGroups", named, call, "groupId").await?;
        Ok(seen(ours, named))
    }

    /// Those with the name, and which of them have the tag.
    async fn balancers(&self, call: &Call<'_>) -> Result<Seen, NoAnswer> {
        let mut named = BTreeSet::new();
        for page in self.pages("DescribeLoadBalancers", Vec::new(), call).await? {
            let document = parse(&page)?;
            let all = document.descendants().filter(|it| named_tag(*it, "LoadBalancerArn"));
            let arns = all.filter_map(|it| {
                let name = it.parent()?.children().find(|it| named_tag(*it, "LoadBalancerName"))?;
                (name.text() == Some(call.identity.name.as_str())).then(|| it.text())?
            });
            named.extend(arns.map(str::to_owned));
        }
        let mut ours = BTreeSet::new();
        let arns: Vec<&String> = named.iter().collect();
        for some in arns.chunks(TAGS_AT_ONCE) {
            let asked = some.iter().zip(1..);
            let asked = asked
                .map(|(arn, at)| parameter(format!("ResourceArns.member.{at}"), arn.as_str()))
                .collect();
            let text = self.ask("DescribeTags", asked, call).await?;
            let document = parse(&text)?;
            let is_ours = |it: &Node<'_, '_>| {
                let tags = it.descendants().filter(|it| named_tag(*it, "Key"));
                tags.filter(|key| key.text() == Some(TAG)).any(|key| {
                    let value = key
                        .parent()
                        .and_then(|it| it.children().find(|it| named_tag(*it, "Value"))?.text());
                    value == Some(call.identity.marker.as_str())
                })
            };
            let described = document.descendants().filter(|it| named_tag(*it, "ResourceArn"));
            let owned = described.filter(|it| it.parent().as_ref().is_some_and(is_ours));
            ours.extend(owned.filter_map(|it| it.text()).map(str::to_owned));
        }
        Ok(seen(ours, named))
    }

    /// The texts of all elements of this name, on all pages.
    async fn all(
        &self,
        action: &str,
        parameters: Parameters,
        call: &Call<'_>,
        element: &str,
    ) -> Result<BTreeSet<String>, NoAnswer> {
        let mut all = BTreeSet::new();
        for page in self.pages(action, parameters, call).await? {
            let document = parse(&page)?;
            // A group is an item of the list; the groups that its rules name stand deeper.
            let list = document.descendants().find(|it| named_tag(*it, "securityGroupInfo"));
            let items = list.into_iter().flat_map(|it| it.children());
            let found = items.filter_map(|it| it.children().find(|it| named_tag(*it, element)));
            all.extend(found.filter_map(|it| it.text()).map(str::to_owned));
        }
        Ok(all)
    }

    async fn pages(
        &self,
        action: &str,
        parameters: Parameters,
        call: &Call<'_>,
    ) -> Result<Vec<String>, NoAnswer> {
        let (from, to) = match self.what {
            Thing::SecurityGroup => ("nextToken", "NextToken"),
            Thing::LoadBalancer => ("NextMarker", "Marker"),
        };
        let mut pages = Vec::new();
        let mut asked = parameters.clone();
        while pages.len() < PAGES_MAX {
            let page = self.ask(action, asked, call).await?;
            let next = first(&page, from).filter(|next| !next.is_empty());
            pages.push(page);
            let Some(next) = next else { return Ok(pages) };
            asked = parameters.iter().cloned().chain([parameter(to, next)]).collect();
        }
        Err(NoAnswer::Unread(200, format!("there are more than {PAGES_MAX} pages")))
    }

    /// One call, and the text of its answer.
    async fn ask(
        &self,
        action: &str,
        parameters: Parameters,
        call: &Call<'_>,
    ) -> Result<String, NoAnswer> {
        let request = self.request(action, parameters, call);
        let request = request.map_err(|text| NoAnswer::Failed(Failed::NotSent(text)))?;
        let answer = client::send(request, self.within).await.map_err(NoAnswer::Failed)?;
        let Answer { status, body, .. } = answer;
        let text = String::from_utf8_lossy(&body).into_owned();
        if (200..300).contains(&status) {
            return Ok(text);
        }
        let code = parse(&text).ok().and_then(|document| {
            let error = document.descendants().find(|it| named_tag(*it, "Error"))?;
            let field = |name| {
                let found = error.children().find(|it| named_tag(*it, name));
                found.and_then(|it| it.text()).map(str::to_owned)
            };
            Some((field("Code")?, field("Message").unwrap_or_default()))
        });
        Err(match code {
            Some((code, text)) => NoAnswer::Error(status, code, text),
            None => NoAnswer::Unread(status, last_line(&text).to_owned()),
        })
    }

    fn request(
        &self,
        action: &str,
        parameters: Parameters,
        call: &Call<'_>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let (service, version) = (self.what.service(), self.what.version());
        let endpoint = match &self.endpoint {
            Some(endpoint) => environment(endpoint)?,
            None => format!("https://{service}.{}.amazonaws.com", self.region),
        };
        let own = [parameter("Action", action), parameter("Version", version)];
        let pairs = own.into_iter().chain(parameters);
        let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let uri: http::Uri =
            url.parse().map_err(|error| format!("`endpoint` is no address: {error}"))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let credentials = Credentials::of_environment()?;
        let target = Target { region: &self.region, service, host: &host, path: "/" };
        let fields = signed(&credentials, target, FORM, &body, call.now);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        request.body(Full::new(body.into())).map_err(|error| format!("no request: {error}"))
    }
}

fn seen(ours: BTreeSet<String>, named: BTreeSet<String>) -> Seen {
    let mut all = ours.iter().cloned();
    match (all.next(), all.next()) {
        (Some(first), Some(second)) => {
            Seen::Several([first, second].into_iter().chain(all).collect())
        }
        (Some(one), None) => Seen::Ours(one),
        (None, _) if named.is_empty() => Seen::Absent,
        (None, _) => Seen::NotOurs(named.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

impl NoAnswer {
    /// What it says about a thing that was to be made. What AWS turns away with an error of the
    /// caller's was not done; of a time-out, or an error of its own, nobody can tell.
    fn made(self) -> Made {
        match self {
            Self::Failed(Failed::NotSent(text)) => Made::Refused(text),
            Self::Failed(Failed::Lost(cause, text)) => Made::Unknown(cause, text),
            Self::Failed(Failed::Cut(_, text)) => Made::Unknown(Cause::AnswerCut, text),
            Self::Error(400..=499, code, text) if is_taken(&code) => {
                Made::Taken(format!("{code}: {text}"))
            }
            Self::Error(400..=407 | 409..=499, code, text) if !code.contains("Timeout") => {
                Made::Refused(format!("{code}: {text}"))
            }
            Self::Error(status, code, text) => {
                let text = format!("answered with {status}: {code}: {text}");
                Made::Unknown(Cause::GatewayAnswer, text)
            }
            Self::Unread(status, text) => {
                Made::Unknown(Cause::GatewayAnswer, format!("answered with {status}: {text}"))
            }
        }
    }

    fn told(self) -> String {
        match self {
            Self::Failed(Failed::NotSent(text) | Failed::Lost(_, text) | Failed::Cut(_, text)) => {
                text
            }
            Self::Error(status, code, text) => format!("answered with {status}: {code}: {text}"),
            Self::Unread(status, text) => format!("answered with {status}: {text}"),
        }
    }
}

/// Another thing has its name, or an earlier attempt is being carried out.
fn is_taken(code: &str) -> bool {
    let codes = [
        "DuplicateLoadBalancerName",
        "InvalidGroup.Duplicate",
        "IdempotentParameterMismatch",
        "OperationNotPermitted",
        "ResourceInUse",
    ];
    codes.contains(&code)
}

fn parse(text: &str) -> Result<Document<'_>, NoAnswer> {
    Document::parse(text).map_err(|error| NoAnswer::Unread(200, format!("it is no XML: {error}")))
}

/// Whatever its namespace is.
fn named_tag(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

/// The text of the first element of this name.
fn first(text: &str, name: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let found = document.descendants().find(|it| named_tag(*it, name))?;
    found.text().map(|it| it.trim().to_owned())
}
