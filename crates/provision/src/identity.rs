//! What a resource is known by outside: its marker, its name and the token of its creation. All
//! three come from the plan's name and the resource's key alone, so that an apply that knows
//! nothing of an earlier one, also on a new store, looks for the same marker.

/// The marker, name and token of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the resource must carry from the moment it exists, to be known as ours: `onlyonce-` and
    /// 32 hexadecimal digits. It is the key's for ever.
    pub marker: String,
    /// A name to give it: letters, digits and `-`, begun by a letter, at most 31 characters.
    pub name: String,
    /// What to send along, so that a receiver that remembers tokens acts once: like a UUID. Each
    /// generation of the key has its own, since a receiver may answer an old one with what is gone.
    pub token: String,
}

/// How much of the key is in the name.
const NAME_CHARS: usize = 18;
/// How many digits of the marker are in the name: 12 of them are 48 bits.
const NAME_DIGITS: usize = 12;

// AWS allows load balancers 32 characters, and that is the least that is known.
const _: () = assert!(NAME_CHARS + 1 + NAME_DIGITS <= 31);

impl Identity {
    /// That of a key in a plan, in this generation, from 1.
    pub fn new(plan: &str, key: &str, generation: u32) -> Self {
        let marker = digest("onlyonce 2026-11 provision marker v1", &[plan, key]);
        let token =
            digest("onlyonce 2026-11 provision token v1", &[plan, key, &generation.to_string()]);
        let digits = &marker[..32];
        let begin: String = key.chars().map(plain).take(NAME_CHARS - 1).collect();
        let begin = begin.trim_matches('-');
        let letter = if begin.starts_with(|it: char| it.is_ascii_alphabetic()) { "" } else { "r" };
        Self {
            marker: format!("onlyonce-{digits}"),
            name: format!("{letter}{begin}-{}", &digits[..NAME_DIGITS]),
            token: uuid(&token),
        }
    }
}

/// What to send along when a key's thing is destroyed, by generation: never what it was made with,
/// since a receiver may then answer that it was made.
pub(crate) fn token_of_destroying(plan: &str, key: &str, generation: u32) -> String {
    let purpose = "onlyonce 2026-11 provision destroy token v1";
    uuid(&digest(purpose, &[plan, key, &generation.to_string()]))
}

/// The first 32 of these digits in the form of a UUID.
fn uuid(digits: &str) -> String {
    let [a, b, c, d, e] =
        [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..32]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn plain(it: char) -> char {
    if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' }
}

/// BLAKE3 for this purpose, in hexadecimal digits. It needs no secret: a marker is no password, and
/// who may write it there may do so anyway.
fn digest(purpose: &'static str, parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_from_plan_and_key_alone_and_stays() {
        let one = Identity::new("shop", "web", 1);
        assert_eq!(one, Identity::new("shop", "web", 1));
        // Pinned: what was made under it must be found by every later version.
        assert_eq!(one.marker, "onlyonce-b5fcae0a9fe40b7d3f91019425c2f6eb");
        assert_eq!(one.name, "web-b5fcae0a9fe4");
        assert_eq!(one.token, "bcaf0c68-4014-9365-867e-3b836611e013");
    }

    #[test]
    fn another_plan_key_or_split_is_another_and_a_generation_changes_the_token_alone() {
        let one = Identity::new("shop", "web", 1);
        for (plan, key) in [("shop2", "web"), ("shop", "web2"), ("sho", "pweb")] {
            let other = Identity::new(plan, key, 1);
            assert_ne!((&other.marker, &other.token), (&one.marker, &one.token), "{plan} {key}");
        }
        let next = Identity::new("shop", "web", 2);
        assert_eq!((&next.marker, &next.name), (&one.marker, &one.name));
        assert_ne!(next.token, one.token);
        let gone = token_of_destroying("shop", "web", 1);
        assert_ne!(gone, one.token);
        assert_ne!(gone, token_of_destroying("shop", "web", 2));
    }

    #[test]
    fn a_name_is_one_everywhere() {
        for key in ["web", "Web/Front", "9lives", "-", "a-very-long-key-for-a-load-balancer"] {
            let name = Identity::new("shop", key, 1).name;
            assert!(name.len() <= 31, "{name}");
            assert!(name.starts_with(|it: char| it.is_ascii_lowercase()), "{name}");
            assert!(!name.contains("--") || key.contains("--"), "{name}");
            assert!(name.chars().all(|it| it.is_ascii_alphanumeric() || it == '-'), "{name}");
        }
    }
}
