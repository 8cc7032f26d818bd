//! What waits for what: references are dependencies too, and there is no circle.

use super::Resource;

/// The keys of a circle, in its order, if there is one.
pub(super) fn circle(resources: &[Resource]) -> Option<Vec<String>> {
    let mut done = vec![false; resources.len()];
    let keys = |places: &[usize]| places.iter().map(|at| resources[*at].key.clone()).collect();
    for start in 0..resources.len() {
        // The way that led here, each place with which of its dependencies is next.
        let mut way = vec![(start, 0)];
        while let Some((at, next)) = way.pop() {
            if done[at] {
                continue;
            }
            let Some(target) = resources[at].after.get(next) else {
                done[at] = true;
                continue;
            };
            way.push((at, next + 1));
            let places: Vec<usize> = way.iter().map(|(at, _)| *at).collect();
            if let Some(begin) = places.iter().position(|at| at == target) {
                return Some(keys(&places[begin..]));
            }
            way.push((*target, 0));
        }
    }
    None
}
