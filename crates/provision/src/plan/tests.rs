//! A mistake in a plan is named with its line and field.

use super::*;

const WEB: &str = "[[resource]]\nkey = \"web\"\nkind = \"command\"\ncreate = \"./make\"\n";

const SERVER: &str = "server = \"postgres://a@b/c\"";

/// A plan of something on a PostgreSQL server.
fn postgres(inputs: &str, more: &str) -> String {
    let head = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"postgres\"";
    format!("{head}\ninputs = {{ {inputs} }}\n{more}\n")
}

fn read(text: &str) -> Result<Plan, String> {
    Plan::parse("plan.toml", text, Path::new("/plans")).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_said_is_usual_and_references_are_waited_for() {
    let text = format!(
        "name = \"shop\"\n{WEB}inputs = {{ n = \"a-${{net.id}}\", size = 3, on = true }}\n\n{}",
        WEB.replace("web", "net")
    );
    let plan = read(&text).unwrap();
    assert_eq!(plan.name(), "shop");
    let [web, net] = plan.resources() else { panic!("{plan:?}") };
    assert_eq!((web.key(), web.kind(), web.after.as_slice()), ("web", "command", &[1][..]));
    assert!(net.after.is_empty());
    let id = |key: &str| (key == "net").then(|| "n-1".to_owned());
    let inputs = web.filled(id).unwrap();
    assert_eq!((inputs["n"].as_str(), inputs["size"].as_str()), ("a-n-1", "3"));
    assert_eq!(web.filled(|_| None), Err("net".to_owned()));
}

#[test]
fn a_mistake_is_named_with_its_line_and_field() {
    let with = |more: &str| format!("name = \"shop\"\n{WEB}{more}\n");
    let two = |more: &str| format!("{}{}", with(more), WEB.replace("web", "db"));
    let file = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"file\"\n";
    for (text, place, says) in [
        ("name = \"shop\"".to_owned(), "1:1", "no resource"),
        (format!("name = \"a b\"\n{WEB}"), "1:8", "`name` is 1 to 100 letters"),
        (with("").replace("\"web\"", "\"w#b\""), "3:7", "`key` is 1 to 100 letters"),
        (format!("{}{WEB}", with("")), "8:7", "\"web\" is the key of another"),
        (with("").replace("\"command\"", "\"comand\""), "4:8", "\"comand\" is no kind"),
        (with("chek = \"x\""), "6:1", "did you mean `check`"),
        (with("check = 7"), "6:9", "`check` of a command is a script"),
        (with("destroy = 7"), "6:11", "`destroy` of a command is a script"),
        (format!("{file}destroy = \"./end\"\n"), "5:11", "`destroy` is not for a file"),
        (with("").replace("create", "check"), "2:1", "`create` is missing"),
        (with("after = [\"db\"]"), "6:10", "`after`: there is no resource with the key \"db\""),
        (with("inputs = { a = \"${db.id}\" }"), "6:16", "`inputs.a`: there is no resource"),
        (with("inputs = { a = \"${db}\" }"), "6:16", "write `${KEY.id}`"),
        (with("inputs = { a = \"${db\" }"), "6:16", "`inputs.a`: `${` has no `}`"),
        (with("inputs = { a = [1] }"), "6:16", "`inputs.a` must be a string"),
        (with("inputs = { A = 1 }"), "6:12", "small letters"),
        (two("after = [\"db\"]") + "after = [\"web\"]", "3:7", "web -> db -> web"),
        (with("after = [\"web\"]"), "3:7", "web -> web"),
        (with("timeout = \"3d\""), "6:11", "from \"10ms\" to \"1d\""),
        (with("receiver = { keyed = \"1m\" }"), "6:12", "it would never count"),
        (with("receiver = { settle = \"1m\" }"), "6:12", "there is no `check`"),
        (with("receiver = { always = \"unique\" }"), "6:23", "\"unique-name\" or"),
        (format!("{file}inputs = {{ path = \"a\" }}"), "2:1", "`inputs.content` is missing"),
        (format!("{file}inputs = {{ path = \"a/\", content = \"\" }}"), "2:1", "name a file"),
        (
            format!("{file}inputs = {{ path = \"a\", content = \"\", mode = \"rw\" }}"),
            "2:1",
            "in octal",
        ),
        (format!("{file}create = \"x\""), "5:10", "`create` is not for a file"),
        (format!("{file}receiver = {{ keyed = \"1d\" }}"), "5:12", "not for a file"),
        (format!("{file}inputs = {{ owner = \"a\" }}"), "2:1", "`inputs.owner`: a file has"),
        (postgres("role = \"a\", database = \"b\"", SERVER), "2:1", "`inputs.role` or `inputs.d"),
        (postgres("role = \"a\", owner = \"b\"", SERVER), "2:1", "a role has `login`"),
        (postgres("role = \"\"", SERVER), "2:1", "`inputs.role` is 1 to 63 bytes"),
        (postgres("role = \"a\"", ""), "2:1", "`server` is missing"),
        (postgres("role = \"a\"", "server = \"db:5432\""), "6:10", "begins with postgres://"),
        (postgres("role = \"a\"", &format!("{SERVER}\npassword = \"${{x}}\"")), "7:12", "only"),
        (
            postgres("database = \"a\"", &format!("{SERVER}\npassword = \"b\"")),
            "7:12",
            "for a role",
        ),
        (postgres("role = \"a\"", &format!("{SERVER}\ncheck = \"x\"")), "7:9", "made by us"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(&format!("plan.toml:{place}: ")), "{place}\n{text}\n{error}");
        assert!(error.contains(says), "{says}\n{error}");
    }
}

#[test]
fn a_mistake_in_a_call_is_named_with_its_field() {
    let with = |calls: &str| {
        format!("name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"http\"\n{calls}\n")
    };
    let create = "create = { url = \"http://a/\", id = \"/id\" }";
    assert!(read(&with(create)).is_ok());
    let made =
        |more: &str| with(&format!("create = {{ url = \"http://a/\", id = \"/id\", {more} }}"));
    let looked = |text: &str| with(&format!("{create}\ncheck = {{ {text} }}"));
    let ended = |text: &str| {
        let check = "url = \"http://a/\", id = \"/id\", marker = \"/tags\"";
        looked(&format!("{check} }}\ndestroy = {{ {text}"))
    };
    assert!(read(&ended("url = \"http://a/\", body = { a = [\"${id}\"] }")).is_ok());
    for (text, place, says) in [
        (with(""), "2:1", "`create`: it is missing"),
        (made("metod = \"PUT\""), "5:10", "unknown field `metod`"),
        (made("method = \"GET\""), "5:10", "write POST, PUT or PATCH"),
        (made("refused = [503, 200]"), "5:10", "200 refuses nothing"),
        (made("taken = [404]"), "5:10", "404 is listed under"),
        (made("body = { a = \"${id}\" }"), "5:10", "`${id}` is not known here"),
        (made("body = { a = \"${input.b}\" }"), "5:10", "`${input.b}` is not known here"),
        (made("headers = { \"a b\" = \"\" }"), "5:10", "no name of a field"),
        (with(&create.replace("http://", "")), "5:10", "begins with http://"),
        (with(&create.replace("/id", "id")), "5:10", "no JSON pointer"),
        (looked("url = \"http://a/\", id = \"/id\""), "6:9", "would else be taken for ours"),
        (looked("url = \"http://a/\""), "6:9", "missing field `id`"),
        (
            with(&format!("{create}\ndestroy = {{ url = \"http://a/${{id}}\" }}")),
            "6:11",
            "no `check`",
        ),
        (ended("url = \"http://a/\""), "7:11", "say which one it is"),
        (ended("url = \"http://a/\", body = [\"${name}\"]"), "7:11", "say which one it is"),
        (ended("url = \"http://a/${id}\", method = \"GET\""), "7:11", "write DELETE, POST"),
        (ended("url = \"http://a/${id}\", gone = [404, 422]"), "7:11", "422 is listed under"),
        (ended("url = \"http://a/${id}\", gone = [100]"), "7:11", "100 answers nothing"),
        (ended("url = \"http://a/${id}\", refused = [302]"), "7:11", "302 refuses nothing"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.starts_with(&format!("plan.toml:{place}: ")), "{place}\n{text}\n{error}");
        assert!(error.contains(says), "{says}\n{error}");
    }
    for marked in ["marker = \"/tags\"", "headers = { x = \"${marker}\" }"] {
        let text = looked(&format!("url = \"http://a/\", id = \"/id\", {marked}"));
        assert!(read(&text).is_ok(), "{text}");
    }
}

#[test]
fn arbitrary_text_is_refused_and_does_no_harm() {
    for text in ["", "[", "name = 1", "name = \"a\"\nresource = 3", "\u{0}", "[[resource]]\n"] {
        assert!(read(text).is_err(), "{text}");
    }
}
