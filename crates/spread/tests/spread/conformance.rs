//! Several stores as one keep what every store promises, while nothing moves and while keys do.

use std::sync::Arc;

use crate::bench::{Beside, map, seated, steady};
use onlyonce_conformance::StoreBuilder;
use onlyonce_core::Secret;
use onlyonce_spread::{Given, Map, Spread};
use onlyonce_store::MemoryStore;

struct Set(Map);

impl StoreBuilder for Set {
    type Store = Spread;

    fn fresh(&self) -> Spread {
        let given = self.0.all().into_iter().map(|own| Given {
            name: format!("member {own}"),
            store: Arc::new(Beside::new(MemoryStore::new(), seated(own, &self.0))),
            secret: Secret::from_bytes([7; 32]),
        });
        onlyonce_conformance::block_on(Spread::open(given.collect(), steady(0))).unwrap()
    }

    fn after_crash(&self, _: Spread) -> Spread {
        self.fresh()
    }
}

mod settled {
    use super::*;
    onlyonce_conformance::conformance_suite!(Set(map("1 1,2 -")));
}

mod one {
    use super::*;
    onlyonce_conformance::conformance_suite!(Set(map("1 1 -")));
}

mod moving {
    use super::*;
    onlyonce_conformance::conformance_suite!(Set(map("2 1,2,3 1,2")));
}

mod leaving {
    use super::*;
    onlyonce_conformance::conformance_suite!(Set(map("2 2 1,2")));
}
