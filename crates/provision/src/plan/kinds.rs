//! What a resource's kind is made of, field by field.

use std::collections::BTreeMap;
use std::time::Duration;

use onlyonce_listen::text::{ConfigError, parsed};
use serde::{Deserialize, Deserializer};
use toml::{Spanned, Value};

use super::calls;
use super::table::{Reading, ResourceTable};
use crate::kind::{Aws, Command, File, Kind, Postgres, Thing, What, too_long};
use crate::template::Template;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KindWord {
    Command,
    File,
    Http,
    Postgres,
    Aws,
}

impl<'de> Deserialize<'de> for KindWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, |text| match text {
            "command" => Ok(Self::Command),
            "file" => Ok(Self::File),
            "http" => Ok(Self::Http),
            "postgres" => Ok(Self::Postgres),
            "aws" => Ok(Self::Aws),
            _ => Err(format!(
                "{text:?} is no kind; write \"command\", \"file\", \"http\", \"postgres\" or \
                 \"aws\""
            )),
        })
    }
}

/// What `type` says.
pub(super) struct ThingWord(Thing);

impl<'de> Deserialize<'de> for ThingWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, |text| match text {
            "security-group" => Ok(Self(Thing::SecurityGroup)),
            "load-balancer" => Ok(Self(Thing::LoadBalancer)),
            _ => Err(format!("{text:?}: write \"security-group\" or \"load-balancer\"")),
        })
    }
}

impl Reading<'_> {
    pub(super) fn kind(
        &self,
        table: &ResourceTable,
        within: Duration,
        inputs: &BTreeMap<String, Template>,
    ) -> Result<Kind, ConfigError> {
        match table.kind.get_ref() {
            KindWord::Command => {
                let script = |field: &str, said: &Option<Spanned<Value>>| {
                    said.as_ref().map(|said| self.script(field, said)).transpose()
                };
                let Some(create) = script("create", &table.create)? else {
                    let text = "`create` is missing: the script that makes it";
                    return Err(self.wrong(self.head.clone(), text));
                };
                let (check, ready) =
                    (script("check", &table.check)?, script("ready", &table.ready)?);
                let destroy = script("destroy", &table.destroy)?;
                Ok(Kind::Command(Command { check, create, ready, destroy, within }))
            }
            KindWord::File => {
                self.file(table, inputs)?;
                Ok(Kind::File(File))
            }
            KindWord::Http => self.http(table, within, inputs),
            KindWord::Postgres => self.postgres(table, within, inputs),
            KindWord::Aws => self.aws(table, within, inputs),
        }
    }

    fn http(
        &self,
        table: &ResourceTable,
        within: Duration,
        inputs: &BTreeMap<String, Template>,
    ) -> Result<Kind, ConfigError> {
        let calls = [&table.check, &table.create, &table.ready, &table.destroy];
        let values = calls.map(|it| it.as_ref().map(|it| it.get_ref().clone()));
        let inputs = inputs.keys().map(String::as_str).collect();
        let names = calls::Names { inputs, bare: table.bare() };
        let made = calls::http(values, &names, within);
        let kind = made.map_err(|(field, text)| {
            let at = [("check", 0), ("create", 1), ("ready", 2), ("destroy", 3)].into_iter();
            let said = at.filter(|(name, _)| *name == field).find_map(|(_, at)| calls[at].as_ref());
            let span = said.map_or(self.head.clone(), |it| self.source.head(it.span()));
            self.wrong(span, &format!("`{field}`: {text}"))
        })?;
        Ok(Kind::Http(Box::new(kind)))
    }

    fn script(&self, field: &str, said: &Spanned<Value>) -> Result<String, ConfigError> {
        match said.get_ref() {
            Value::String(text) if !text.trim().is_empty() => Ok(text.clone()),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => {
                let text = format!("`{field}` of a command is a script, such as \"./{field}.sh\"");
                Err(self.wrong(said.span(), &text))
            }
        }
    }

    fn file(
        &self,
        table: &ResourceTable,
        inputs: &BTreeMap<String, Template>,
    ) -> Result<(), ConfigError> {
        self.no_calls(table, "a file")?;
        self.no_receiver(table, "a file")?;
        let all = [File::PATH, File::CONTENT, File::MODE];
        if let Some(name) = inputs.keys().find(|name| !all.contains(&name.as_str())) {
            let text = format!("`inputs.{name}`: a file has `path`, `content` and `mode`");
            return Err(self.wrong(self.head.clone(), &text));
        }
        for name in [File::PATH, File::CONTENT] {
            if !inputs.contains_key(name) {
                let text = format!("`inputs.{name}` is missing: a file has `path` and `content`");
                return Err(self.wrong(self.head.clone(), &text));
            }
        }
        // An id is never empty, so what is wrong without references is wrong with them.
        let shown = |template: &Template| template.fill(|_| Some("id".into())).unwrap_or_default();
        let wrong = inputs.iter().find_map(|(name, value)| File::wrong(name, &shown(value)));
        wrong.map_or(Ok(()), |text| Err(self.wrong(self.head.clone(), &text)))
    }

    /// What is looked for and made by us has no calls, and its kind says what it offers.
    fn no_calls(&self, table: &ResourceTable, what: &str) -> Result<(), ConfigError> {
        let own = [
            ("check", &table.check),
            ("create", &table.create),
            ("ready", &table.ready),
            ("destroy", &table.destroy),
        ];
        for (field, said) in own {
            if let Some(said) = said {
                let text = format!("`{field}` is not for {what}: it is looked for and made by us");
                return Err(self.wrong(said.span(), &text));
            }
        }
        Ok(())
    }

    /// Nor has what is marked in the very step that gives it its name a receiver to declare.
    fn no_receiver(&self, table: &ResourceTable, what: &str) -> Result<(), ConfigError> {
        let Some(receiver) = &table.receiver else { return Ok(()) };
        let text = format!("`receiver` is not for {what}: a name is given once there");
        Err(self.wrong(self.source.head(receiver.span()), &text))
    }

    fn postgres(
        &self,
        table: &ResourceTable,
        within: Duration,
        inputs: &BTreeMap<String, Template>,
    ) -> Result<Kind, ConfigError> {
        self.no_calls(table, "PostgreSQL")?;
        self.no_receiver(table, "PostgreSQL")?;
        let what = match (inputs.contains_key("role"), inputs.contains_key("database")) {
            (true, false) => What::Role,
            (false, true) => What::Database,
            (true, true) | (false, false) => {
                let text = "write `inputs.role` or `inputs.database`: what is to be there";
                return Err(self.wrong(self.head.clone(), text));
            }
        };
        let more = match what {
            What::Role => "login",
            What::Database => "owner",
        };
        let all = [what.input(), more];
        if let Some(name) = inputs.keys().find(|name| !all.contains(&name.as_str())) {
            let text = format!("`inputs.{name}`: a {} has `{more}`", what.input());
            return Err(self.wrong(self.head.clone(), &text));
        }
        for name in inputs.keys().filter(|name| *name != "login") {
            let shown = inputs[name].fill(|_| Some("id".into())).unwrap_or_default();
            if let Some(text) = too_long(&format!("inputs.{name}"), &shown) {
                return Err(self.wrong(self.head.clone(), &text));
            }
        }
        let Some(server) = &table.server else {
            let text = "`server` is missing: the address of the server, such as \
                        \"postgres://admin@db.example/postgres\"";
            return Err(self.wrong(self.head.clone(), text));
        };
        let begins = ["postgres://", "postgresql://", "${env."];
        if !begins.iter().any(|it| server.get_ref().starts_with(it)) {
            let text = "`server` begins with postgres://, or is `${env.NAME}`";
            return Err(self.wrong(server.span(), text));
        }
        let server = self.secret("server", server)?;
        let password = table.password.as_ref();
        if let (Some(password), What::Database) = (password, what) {
            return Err(self.wrong(password.span(), "`password` is for a role"));
        }
        let password = password.map(|said| self.secret("password", said)).transpose()?;
        Ok(Kind::Postgres(Postgres { server, password, what, within }))
    }

    fn aws(
        &self,
        table: &ResourceTable,
        within: Duration,
        inputs: &BTreeMap<String, Template>,
    ) -> Result<Kind, ConfigError> {
        self.no_calls(table, "AWS")?;
        let missing = |text: &str| self.wrong(self.head.clone(), text);
        let Some(ThingWord(what)) = table.r#type.as_ref().map(Spanned::get_ref) else {
            let text = "`type` is missing: \"security-group\" or \"load-balancer\"";
            return Err(missing(text));
        };
        let Some(region) = table.region.as_ref().map(Spanned::get_ref) else {
            return Err(missing("`region` is missing, such as \"eu-west-1\""));
        };
        if let Some(text) = what.wrong(inputs.keys().map(String::as_str)) {
            return Err(missing(&text));
        }
        let endpoint = table.endpoint.as_ref();
        let endpoint = endpoint.map(|said| self.secret("endpoint", said)).transpose()?;
        let (what, region) = (*what, region.clone());
        Ok(Kind::Aws(Aws { what, region, endpoint, within }))
    }

    /// A text that may refer to variables of the environment.
    fn secret(&self, field: &str, said: &Spanned<String>) -> Result<Template, ConfigError> {
        let wrong = |text: &str| self.wrong(said.span(), &format!("`{field}`: {text}"));
        let template = Template::parse(said.get_ref()).map_err(|text| wrong(&text))?;
        match template.references().iter().find(|it| !it.starts_with("env.")) {
            Some(_) => Err(wrong("only `${env.NAME}`, a variable of the environment, is known")),
            None => Ok(template),
        }
    }
}
