//! `onlyonce keys list`, `get`, `resolve`, `seal` and `erase`

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use onlyonce_core::{Key, Scope, ScopeError, Timestamp};
use onlyonce_http::key::{self, KeyFieldError, KeyFormat, KeySpelling};
use onlyonce_http::{Keys, ScopeRule, capture, scope};
use onlyonce_run::{Ended, Stream, Transcript};

use crate::args::{EraseArgs, KeyArgs, KeysCommand, ResolveArgs, SealArgs, StateArg, StoreArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::operate::{Ask, Finding, Operator, Told, View};
use crate::output::{self, printable};
use crate::place::{Place, now};
use crate::progress::Bar;

/// Keys that are asked for at once.
const PAGE: usize = 1_000;
/// The largest reply that is kept, in bytes.
const REPLY_MAX: usize = 16 << 20;

pub(crate) async fn run(command: KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::List { store, state, alarm, json, limit } => {
            let operator = Operator::at(&store).await?;
            let listed = list(&operator, (state, alarm), json, limit).await;
            operator.close();
            listed
        }
        KeysCommand::Get { key, store } => {
            let id = id(&key, &store.store).await?;
            let operator = Operator::at(&store).await?;
            let got = operator.ask(Ask::Get { id: id.clone() }).await;
            operator.close();
            match got? {
                Told::Key(Some(view)) => show(&view),
                told @ (Told::Key(None)
                | Told::Page { .. }
                | Told::Encryption { .. }
                | Told::BackedUp { .. }
                | Told::Resolved { .. }
                | Told::Failed { .. }) => {
                    drop(told);
                    let none = Failure::new(Exit::Refused, format!("{id}: there is no record"));
                    Err(if key.key.is_some() {
                        none.with_hint(format!(
                            "the id was made of --key under scope {}; name the route's own scope \
                             with --scope, and what names the caller with --header",
                            key.scope
                        ))
                    } else {
                        none
                    })
                }
            }
        }
        KeysCommand::Resolve(args) => resolve(args).await,
        KeysCommand::Seal(args) => seal(args).await,
        KeysCommand::Erase(args) => erase(args).await,
        KeysCommand::Encryption { store, renew } => super::encryption::run(&store, renew).await,
    }
}

async fn list(
    operator: &Operator,
    (state, alarm): (Option<StateArg>, bool),
    json: bool,
    limit: Option<usize>,
) -> Result<(), Failure> {
    let state = state.map(|state| state_name(state).to_owned());
    let (mut after, mut left) = (None, limit.unwrap_or(usize::MAX));
    let mut rows = Vec::new();
    // Between lines that are told at once it would only be in the way.
    let bar = (!json).then(|| Bar::counting("keys"));
    while 0 < left {
        // Few keys have an alarm, so that all are looked through for them.
        let most = if alarm { PAGE } else { left.min(PAGE) };
        let ask = Ask::List { state: state.clone(), after, limit: most };
        let told = operator.ask(ask).await?;
        let Told::Page { mut keys, damaged, next } = told else { break };
        bar.iter().for_each(|bar| bar.more(keys.len()));
        keys.retain(|view| view.alarm || !alarm);
        keys.truncate(left);
        left = left.saturating_sub(keys.len() + damaged.len());
        for view in keys {
            if json {
                let line = serde_json::to_string(&view).map_err(std::io::Error::from)?;
                output::line(&line)?;
            } else {
                let View { id, state, fence, attempt, since, about, .. } = view;
                let (fence, attempt) = (fence.to_string(), attempt.to_string());
                rows.push([id, state, fence, attempt, since, printable(&about)]);
            }
        }
        for text in damaged {
            output::line(&format!("damaged: {}", printable(&text)))?;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    drop(bar);
    if !json {
        let headings = ["ID", "STATE", "FENCE", "ATTEMPT", "SINCE", "ABOUT"];
        output::line(&output::table(headings, &rows))?;
    }
    Ok(())
}

const fn state_name(state: StateArg) -> &'static str {
    match state {
        StateArg::InFlight => "in-flight",
        StateArg::Released => "released",
        StateArg::Completed => "completed",
        StateArg::Unknown => "unknown",
        StateArg::Tombstone => "tombstone",
    }
}

/// The id of the key that was named.
async fn id(key: &KeyArgs, place: &Place) -> Result<String, Failure> {
    let wrong = |text: String| Failure::new(Exit::Usage, text);
    let Some(text) = &key.key else {
        return key.id.clone().ok_or_else(|| wrong("name a key by its id or with --key".into()));
    };
    let secret = place.secret().await?;
    if let Some(scope) = command_scope(&key.scope) {
        let scope = scope.map_err(|error| wrong(format!("--scope: {error}")))?;
        let key = Key::new(text.clone()).map_err(|error| wrong(format!("--key: {error}")))?;
        return Ok(secret.key_id(&scope, &key).to_string());
    }
    let parsed = parsed(text).map_err(|error| wrong(format!("--key: {error}")))?;
    let mut headers = HeaderMap::new();
    for field in &key.headers {
        let pair = field.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) =
            pair.ok_or_else(|| wrong(format!("--header {field:?} is no `Name: value`")))?;
        headers.append(name, value);
    }
    let keys = Keys::new(secret);
    let rule = scope_rule(&key.scope).ok_or_else(|| {
        wrong(format!(
            "--scope {:?} is not known; write auto, shared, header:NAME, cookie:NAME or \
             command:NAME",
            key.scope
        ))
    })?;
    let caller = scope::caller(&rule, &headers, None, &keys, now())
        .map_err(|error| wrong(format!("--header: {error}")))?;
    Ok(keys.key_id(&caller.scope, &parsed).to_string())
}

/// The scope of commands that `onlyonce run` has recorded.
fn command_scope(text: &str) -> Option<Result<Scope, ScopeError>> {
    let name = match text.split_once(':') {
        None if text == "command" => "",
        Some(("command", name)) => name,
        _ => return None,
    };
    Some(onlyonce_run::scope(name))
}

fn scope_rule(text: &str) -> Option<ScopeRule> {
    match text.split_once(':') {
        None if text == "auto" => Some(ScopeRule::Auto),
        None if text == "shared" => Some(ScopeRule::Shared),
        Some(("header", name)) => {
            HeaderName::from_bytes(name.as_bytes()).ok().map(ScopeRule::Header)
        }
        Some(("cookie", name)) => Some(ScopeRule::Cookie(name.to_owned())),
        _ => None,
    }
}

fn show(view: &View) -> Result<(), Failure> {
    Ok(output::line(&lines(view).join("\n"))?)
}

/// All there is to say of a key, the first its id.
pub(crate) fn lines(view: &View) -> Vec<String> {
    let mut lines = vec![
        format!("id                {}", view.id),
        format!("state             {}", view.state),
        format!("since             {}", view.since),
        format!("about             {}", printable(&view.about)),
        format!("fence             {}", view.fence),
        format!("attempt           {}", view.attempt),
        format!("runs authorised   {}", view.runs_authorised),
    ];
    if view.alarm {
        let says = "another success was reported than the first: did it happen twice?";
        lines.push(format!("alarm             {says}"));
    }
    lines.extend(view.key_time.iter().map(|at| format!("the key's time    {at}")));
    let evidence = view.evidence.iter();
    lines.extend(evidence.map(|it| format!("evidence          {}", printable(it))));
    for note in &view.history {
        let (by, why) = (printable(&note.by), printable(&note.why));
        lines.push(format!("history           {} {} by {by}: {why}", note.at, note.event));
    }
    lines
}

async fn resolve(args: ResolveArgs) -> Result<(), Failure> {
    let id = id(&args.key, &args.store.store).await?;
    let verdict = match (&args.happened, args.exited) {
        (Some(file), _) => happened(file)?,
        (None, Some(code)) => exited(code, args.stdout.as_deref())?,
        (None, None) if args.run_again => Finding::RunAgain,
        (None, None) => Finding::NotExecuted,
    };
    let ResolveArgs { fence, by, why, store, retention, .. } = args;
    let retention = retention.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let ask = Ask::Resolve { id: id.clone(), fence, verdict, retention, by, why };
    let hint = "look again with `onlyonce keys get`, and name the fence that it prints";
    change(&store, &id, ask, hint).await
}

async fn seal(args: SealArgs) -> Result<(), Failure> {
    let SealArgs { key, store, why, by } = args;
    let id = id(&key, &store.store).await?;
    // The time that it carries, so that it is forgotten no sooner than others of its age.
    let text = key.key.as_deref().and_then(|text| parsed(text).ok());
    let key_time = text.and_then(|key| key::carried_time(&key, KeyFormat::Any));
    let key_time = key_time.map(Timestamp::as_millis);
    let ask = Ask::Seal { id: id.clone(), key_time, by, why };
    change(&store, &id, ask, "look at it with `onlyonce keys get`").await
}

async fn erase(args: EraseArgs) -> Result<(), Failure> {
    let EraseArgs { key, store, why, by } = args;
    let id = id(&key, &store.store).await?;
    let ask = Ask::Erase { id: id.clone(), by, why };
    change(&store, &id, ask, "look at it with `onlyonce keys get`").await
}

/// Asks for a change and tells what it came to.
async fn change(store: &StoreArgs, id: &str, ask: Ask, hint: &str) -> Result<(), Failure> {
    let operator = Operator::at(store).await?;
    let told = operator.ask(ask).await;
    operator.close();
    let Told::Resolved { done, text, key } = told? else {
        return Err(Failure::new(Exit::Unknown, "the answer is not understood"));
    };
    if let Some(view) = &key {
        show(view)?;
    }
    if done {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{id}: {text}")).with_hint(hint))
}

/// A key as a header has it: quoted or bare.
fn parsed(text: &str) -> Result<Key, KeyFieldError> {
    key::parse_value(text.as_bytes(), KeySpelling::Lenient)
}

/// What a command that has happened is answered with.
fn exited(code: u8, out: Option<&Path>) -> Result<Finding, Failure> {
    let named = |file: &Path, text: String| {
        Failure::new(Exit::Usage, format!("{}: {text}", file.display()))
    };
    let mut pieces = Vec::new();
    if let Some(file) = out {
        let bytes = std::fs::read(file).map_err(|error| named(file, error.to_string()))?;
        if REPLY_MAX / 2 < bytes.len() {
            return Err(named(file, format!("it has more than {} bytes", REPLY_MAX / 2)));
        }
        pieces.push((Stream::Out, bytes.into()));
    }
    let written = pieces.iter().map(|(_, bytes): &(_, bytes::Bytes)| bytes.len() as u64).sum();
    let reply = Transcript { ended: Ended::exited(code), written, pieces }.reply();
    let content = reply.content().map(|it| BASE64.encode(it)).unwrap_or_default();
    Ok(Finding::Happened { status: reply.status(), content })
}

/// Reads an HTTP answer from a file.
fn happened(file: &Path) -> Result<Finding, Failure> {
    let named = |text: String| Failure::new(Exit::Usage, format!("{}: {text}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut fields);
    let example = "write it as HTTP does: `HTTP/1.1 201 Created`, header fields, an empty line, \
                   the body";
    let end = match head.parse(&bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => {
            return Err(named(format!("the head has no end: there is no empty line; {example}")));
        }
        Err(error) => return Err(named(format!("{error}; {example}"))),
    };
    let mut answer = Response::builder().status(head.code.unwrap_or_default());
    for field in head.headers.iter() {
        answer = answer.header(field.name, field.value);
    }
    let (parts, ()) = answer.body(()).map_err(|error| named(error.to_string()))?.into_parts();
    let reply = capture::whole(&parts, &bytes[end..], false, REPLY_MAX);
    let Some(content) = reply.content() else {
        return Err(named(format!("the answer has more than {REPLY_MAX} bytes")));
    };
    Ok(Finding::Happened { status: reply.status(), content: BASE64.encode(content) })
}
