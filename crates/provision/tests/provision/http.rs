//! Things behind an API that delays and drops at every point: however it ends, there is one of
//! each.

use std::time::Duration;

use onlyonce_provision::{Became, Identity};

use crate::api::{Api, LATE, Manner};
use crate::site::{Site, ready};

/// A plan of one thing of this API, with more lines about it.
fn plan(api: &Api, more: &str) -> String {
    let url = api.url();
    format!(
        "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"http\"\n\
         timeout = \"400ms\"\n{more}\ninputs = {{ size = 3, owner = \"ann \\\"a\\\"\" }}\n\
         [resource.check]\nurl = \"{url}/things\"\nitems = \"/things\"\nid = \"/id\"\n\
         marker = \"/tags\"\n\
         [resource.create]\nurl = \"{url}/things\"\nid = \"/id\"\n\
         body = {{ tags = [\"${{marker}}\"], token = \"${{token}}\", size = \"${{input.size}}\", \
         owner = \"by ${{input.owner}}\", fixed = [1, true] }}\n\
         [resource.ready]\nurl = \"{url}/things/${{id}}\"\nfield = \"/state\"\nis = [\"active\"]\n\
         failed = [\"error\"]\n"
    )
}

pub(crate) fn bounded(api: &Api) -> String {
    plan(api, &format!("receiver = {{ settle = \"10ms\", late = \"{}ms\" }}", 2 * LATE.as_millis()))
}

/// The same without a `check`.
fn unchecked(plan: &str) -> String {
    let check = plan.find("[resource.check]").unwrap();
    let create = plan.find("[resource.create]").unwrap();
    format!("{}{}", &plan[..check], &plan[create..])
}

/// Applies until it is ready; how often nobody knew.
async fn until_ready(site: &Site, plan: &str) -> usize {
    for unknown in 0.. {
        let became = site.apply_one(plan).await;
        if matches!(became, Became::Ready(_)) {
            return unknown;
        }
        assert!(matches!(became, Became::Unknown(_)), "{became:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("it ends when it is ready")
}

#[tokio::test]
async fn a_thing_is_made_once_as_the_plan_says() {
    let (site, api) = (Site::open(), Api::open());
    assert_eq!(ready(&site.apply_one(&bounded(&api)).await), "lb-0");
    assert_eq!(ready(&site.apply_one(&bounded(&api)).await), "lb-0");
    let things = api.things();
    assert_eq!(things.len(), 1);
    let identity = Identity::new("shop", "web", 1);
    assert_eq!((&things[0].marker, &things[0].token), (&identity.marker, &identity.token));
    let body = &things[0].body;
    assert_eq!((&body["size"], &body["owner"]), (&3.into(), &"by ann \"a\"".into()));
    assert_eq!(body["fixed"], serde_json::json!([1, true]));
}

/// Whatever is dropped or late, and however often it is applied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_an_answer_is_lost_there_is_one_in_the_end() {
    let mut all = tokio::task::JoinSet::new();
    for manner in Manner::DOUBTFUL {
        all.spawn(async move {
            let (site, api) = (Site::open(), Api::open());
            api.manner(manner);
            let first = site.apply_one(&bounded(&api)).await;
            if manner == Manner::Repeated {
                // That its place is taken is looked after at once: by itself.
                assert_eq!(ready(&first), "lb-0");
            } else {
                assert!(matches!(first, Became::Unknown(_)), "{manner:?}: {first:?}");
            }
            api.manner(Manner::Answer);
            until_ready(&site, &bounded(&api)).await;
            tokio::time::sleep(2 * LATE).await;
            assert_eq!(api.things().len(), 1, "{manner:?}");
            assert!(matches!(site.apply_one(&bounded(&api)).await, Became::Ready(_)));
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

/// The same where nothing can be looked for, and tokens are remembered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn where_tokens_are_remembered_it_is_repeated_and_there_is_one() {
    let mut all = tokio::task::JoinSet::new();
    for manner in Manner::DOUBTFUL {
        all.spawn(async move {
            let (site, api) = (Site::open(), Api::open());
            api.keyed();
            api.manner(manner);
            let keyed = plan(&api, "receiver = { keyed = \"24h\", late = \"1m\" }");
            let keyed = unchecked(&keyed);
            let first = site.apply_one(&keyed).await;
            assert!(matches!(first, Became::Unknown(_)), "{manner:?}: {first:?}");
            api.manner(Manner::Answer);
            assert_eq!(ready(&site.apply_one(&keyed).await), "lb-0");
            tokio::time::sleep(2 * LATE).await;
            assert_eq!(api.things().len(), 1, "{manner:?}");
            let tokens: Vec<_> = api.asked().iter().map(|it| it["token"].clone()).collect();
            assert!(tokens.iter().all(|it| *it == tokens[0]), "{tokens:?}");
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

/// Case B133. That its place is taken is also said of what this very request has made.
#[tokio::test]
async fn where_nothing_can_be_looked_for_a_place_that_is_taken_is_not_called_free() {
    for keyed in ["", "receiver = { keyed = \"24h\", late = \"1m\" }"] {
        let (site, api) = (Site::open(), Api::open());
        api.manner(Manner::Repeated);
        let plan = unchecked(&plan(&api, keyed));
        let became = site.apply_one(&plan).await;
        let Became::Unknown(doubt) = &became else { panic!("{became:?}") };
        assert!(doubt.why.contains("409") && doubt.why.contains("no `check`"), "{doubt:?}");
        // With other inputs it would be a second one.
        api.manner(Manner::Answer);
        let became = site.apply_one(&plan.replace("size = 3", "size = 4")).await;
        assert!(matches!(became, Became::Changed { .. }), "{became:?}");
        assert_eq!((api.things().len(), api.asked().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_refusal_is_a_failure_and_what_has_its_place_a_conflict() {
    let (site, api) = (Site::open(), Api::open());
    api.manner(Manner::Refuse);
    let Became::Refused(text) = site.apply_one(&bounded(&api)).await else { panic!() };
    assert!(text.contains("answered with 422") && text.contains("no such size"), "{text}");
    api.manner(Manner::Answer);
    assert_eq!(ready(&site.apply_one(&bounded(&api)).await), "lb-0");

    // Somebody else's: seen before anything is asked for.
    let (site, api) = (Site::open(), Api::open());
    api.add("bob");
    assert_eq!(site.apply_one(&bounded(&api)).await, Became::Conflict("lb-0".into()));
    assert_eq!((api.things().len(), api.asked().len()), (1, 0));

    // Nobody has seen it there, and yet its place is taken: nobody knows.
    let (site, api) = (Site::open(), Api::open());
    api.manner(Manner::Taken);
    let Became::Unknown(doubt) = site.apply_one(&bounded(&api)).await else { panic!() };
    assert!(doubt.why.contains("its place is taken"), "{doubt:?}");
    assert_eq!(api.things().len(), 0);
}

#[tokio::test]
async fn two_of_ours_are_named_and_nothing_is_made() {
    let (site, api) = (Site::open(), Api::open());
    let marker = Identity::new("shop", "web", 1).marker;
    api.add(&marker);
    api.add(&marker);
    let both = Became::Duplicate(vec!["lb-0".into(), "lb-1".into()]);
    assert_eq!(site.apply_one(&bounded(&api)).await, both);
    assert_eq!((api.things().len(), api.asked().len()), (2, 0));
}

#[tokio::test]
async fn one_that_cannot_be_reached_was_certainly_not_asked() {
    let (site, api) = (Site::open(), Api::open());
    let plan = bounded(&api).replace(&api.url(), "http://127.0.0.1:1");
    assert!(matches!(site.apply_one(&plan).await, Became::CannotTell(_)));
    let unchecked =
        unchecked(&plan).replace("receiver = { settle = \"10ms\", late = \"300ms\" }", "");
    assert!(matches!(site.apply_one(&unchecked).await, Became::Refused(_)));
}

/// Case B133. It answers before it is ready, and is asked again later.
#[tokio::test]
async fn one_that_is_not_ready_is_waited_for_and_not_made_again() {
    let (site, api) = (Site::open(), Api::open());
    let hasty = bounded(&api).replace("timeout", "ready_within = \"10ms\"\ntimeout");
    api.status("provisioning");
    for _ in 0..2 {
        let Became::NotReady { receipt, why } = site.apply_one(&hasty).await else { panic!() };
        assert_eq!((receipt.id.as_str(), why.as_str()), ("lb-0", "provisioning"));
    }
    api.status("error");
    assert!(matches!(site.apply_one(&hasty).await, Became::NotReady { .. }));
    api.status("active");
    assert_eq!(ready(&site.apply_one(&hasty).await), "lb-0");
    assert_eq!((api.things().len(), api.asked().len()), (1, 1));
}

#[tokio::test]
async fn an_answer_that_does_not_say_what_is_there_makes_nothing() {
    for (was, is) in [
        ("items = \"/things\"", "items = \"/stuff\""),
        ("/things\"\nitems", "/things/lb-9\"\nitems"),
        ("id = \"/id\"\nmarker", "id = \"/nr\"\nmarker"),
        ("marker = \"/tags\"", "marker = \"/tags\"\nmore = \"/things\""),
    ] {
        let (site, api) = (Site::open(), Api::open());
        api.add("bob");
        let plan = bounded(&api);
        assert!(plan.contains(was), "{was}");
        let became = site.apply_one(&plan.replacen(was, is, 1)).await;
        assert!(matches!(became, Became::CannotTell(_)), "{is}: {became:?}");
        assert_eq!((api.things().len(), api.asked().len()), (1, 0), "{is}");
    }
}
