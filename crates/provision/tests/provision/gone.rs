//! What is destroyed behind an API, and what is removed as a file: once, as it was confirmed, and
//! only what carries our marker. What is there is counted where it is.

use std::fs;
use std::time::Duration;

use onlyonce_provision::{Became, Changed, Destroyed, Identity};

use crate::api::{Api, Manner};
use crate::http::bounded;
use crate::site::{Site, ready, until};

const FILE: &str = "name = \"shop\"\n[[resource]]\nkey = \"web\"\nkind = \"file\"\n\
    inputs = { path = \"app.conf\", content = \"port = 80\\n\" }\n";

/// A plan of one thing of this API, which says how it is destroyed.
fn plan(api: &Api) -> String {
    let url = api.url();
    format!(
        "{}[resource.destroy]\nurl = \"{url}/things/${{id}}\"\n\
         body = {{ token = \"${{token}}\" }}\n",
        bounded(api)
    )
}

async fn destroy(site: &Site, plan: &str, id: &str) -> Destroyed {
    let provisioner = site.provisioner(plan).await;
    provisioner.destroy("web", id, "ann", "closed", Duration::from_secs(60)).await.unwrap()
}

#[track_caller]
fn refused(destroyed: &Destroyed) -> &str {
    let Destroyed::Refused(text) = destroyed else { panic!("{destroyed:?}") };
    text
}

#[tokio::test]
async fn a_thing_behind_an_api_is_destroyed_once_and_stays_gone() {
    let (site, api) = (Site::open(), Api::open());
    assert_eq!(ready(&site.apply_one(&plan(&api)).await), "lb-0");
    assert!(refused(&destroy(&site, &plan(&api), "lb-1").await).contains("recorded as lb-0"));
    for _ in 0..2 {
        assert!(matches!(destroy(&site, &plan(&api), "lb-0").await, Destroyed::Gone(_)));
    }
    assert!(matches!(site.apply_one(&plan(&api)).await, Became::Destroyed(_)));
    let ended = api.ended();
    assert_eq!((api.things().len(), api.asked().len(), ended.len()), (0, 1, 1));
    assert_eq!(ended[0].0, "lb-0");
    // A receiver may know that of the making.
    assert_ne!(ended[0].1, Identity::new("shop", "web", 1).token.as_str());
}

/// Whatever is dropped or late, and however often it is asked for again: it is gone in the end, and
/// it is asked for a second time only where the first can no longer act.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wherever_the_answer_to_a_destroying_is_lost_it_is_gone_in_the_end() {
    let mut all = tokio::task::JoinSet::new();
    for manner in Manner::DOUBTFUL.into_iter().chain([Manner::Taken]) {
        all.spawn(async move {
            let (site, api) = (Site::open(), Api::open());
            site.apply_one(&plan(&api)).await;
            api.ending(manner);
            let first = destroy(&site, &plan(&api), "lb-0").await;
            let is_told = manner == Manner::CutInAnswer;
            assert_eq!(matches!(first, Destroyed::Gone(_)), is_told, "{manner:?}: {first:?}");
            assert!(is_told || matches!(first, Destroyed::Unknown(_)), "{manner:?}: {first:?}");
            api.ending(Manner::Answer);
            until("it is gone", || async {
                match destroy(&site, &plan(&api), "lb-0").await {
                    Destroyed::Gone(_) => true,
                    Destroyed::Unknown(_) => false,
                    other @ (Destroyed::Refused(_)
                    | Destroyed::Unrecorded { .. }
                    | Destroyed::Busy) => panic!("{manner:?}: {other:?}"),
                }
            })
            .await;
            let without_effect = [
                Manner::CloseAtOnce,
                Manner::CutBefore,
                Manner::SilentBefore,
                Manner::GatewayBefore,
                Manner::Taken,
            ];
            let asked = 1 + usize::from(without_effect.contains(&manner));
            let lost = usize::from(manner == Manner::CloseAtOnce);
            assert_eq!(api.ended().len(), asked - lost, "{manner:?}");
            let became = site.apply_one(&plan(&api)).await;
            assert!(matches!(became, Became::Destroyed(_)), "{manner:?}: {became:?}");
            assert_eq!((api.things().len(), api.asked().len()), (0, 1), "{manner:?}");
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn what_an_api_refuses_to_destroy_or_what_is_not_ours_there_stays() {
    let (site, api) = (Site::open(), Api::open());
    site.apply_one(&plan(&api)).await;
    api.ending(Manner::Refuse);
    assert!(refused(&destroy(&site, &plan(&api), "lb-0").await).contains("answered with 422"));
    assert_eq!(ready(&site.apply_one(&plan(&api)).await), "lb-0");
    let without = bounded(&api);
    assert!(refused(&destroy(&site, &without, "lb-0").await).contains("has no `destroy`"));
    assert_eq!((api.things().len(), api.ended().len()), (1, 1));

    // Somebody has said that it is this one, and it has no marker.
    let (site, api) = (Site::open(), Api::open());
    api.add("bob");
    let provisioner = site.provisioner(&plan(&api)).await;
    assert_eq!(provisioner.import("web", "lb-0").await.unwrap(), Changed::Done);
    assert!(refused(&destroy(&site, &plan(&api), "lb-0").await).contains("not ours"));
    assert_eq!((api.things().len(), api.ended().len()), (1, 0));
}

/// The plan leads to another place meanwhile, where there never was anything.
#[tokio::test]
async fn that_nothing_shows_at_another_api_does_not_say_that_it_is_gone() {
    let (site, api, other) = (Site::open(), Api::open(), Api::open());
    site.apply_one(&plan(&api)).await;
    api.ending(Manner::CutBefore);
    let doubt = destroy(&site, &plan(&api), "lb-0").await;
    assert!(matches!(doubt, Destroyed::Unknown(_)), "{doubt:?}");
    let doubt = destroy(&site, &plan(&other), "lb-0").await;
    assert!(matches!(&doubt, Destroyed::Unknown(it) if it.why.contains("did not show")));
    assert_eq!((api.things().len(), api.ended().len(), other.ended().len()), (1, 1, 0));
}

/// Names in the folder that have to do with the file.
fn names(site: &Site) -> Vec<String> {
    let names = fs::read_dir(site.path("")).unwrap();
    let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("app.conf")).collect()
}

#[tokio::test]
async fn a_file_is_removed_once_and_leaves_nothing_behind() {
    let site = Site::open();
    assert_eq!(ready(&site.apply_one(FILE).await), "app.conf");
    for _ in 0..2 {
        assert!(matches!(destroy(&site, FILE, "app.conf").await, Destroyed::Gone(_)));
        assert_eq!(names(&site), Vec::<String>::new());
    }
    assert!(matches!(site.apply_one(FILE).await, Became::Destroyed(_)));
    // What somebody puts there now is his.
    site.write("app.conf", "port = 80\n");
    assert!(matches!(destroy(&site, FILE, "app.conf").await, Destroyed::Gone(_)));
    assert_eq!(names(&site), ["app.conf"]);
    site.remove("app.conf");
    let provisioner = site.provisioner(FILE).await;
    provisioner.forget("web", "ann", "open again").await.unwrap();
    assert_eq!(ready(&site.apply_one(FILE).await), "app.conf");
}

#[tokio::test]
async fn a_file_that_somebody_has_written_into_or_replaced_stays_as_it_is() {
    let site = Site::open();
    site.apply_one(FILE).await;
    for edited in ["port = 81\n", "port = 80\n\n", "", "port"] {
        site.write("app.conf", edited);
        let destroyed = destroy(&site, FILE, "app.conf").await;
        assert!(refused(&destroyed).contains("not what was written"), "{destroyed:?}");
        assert_eq!(site.read("app.conf"), edited);
        assert_eq!(ready(&site.apply_one(FILE).await), "app.conf");
    }
    // The same content in another file is no proof.
    site.write("other", "port = 80\n");
    fs::rename(site.path("other"), site.path("app.conf")).unwrap();
    assert!(refused(&destroy(&site, FILE, "app.conf").await).contains("not ours"));
    assert_eq!(site.read("app.conf"), "port = 80\n");

    let site = Site::open();
    site.write("app.conf", "port = 80\n");
    let provisioner = site.provisioner(FILE).await;
    assert_eq!(provisioner.import("web", "app.conf").await.unwrap(), Changed::Done);
    assert!(refused(&destroy(&site, FILE, "app.conf").await).contains("not ours"));
    assert_eq!(site.read("app.conf"), "port = 80\n");
}
