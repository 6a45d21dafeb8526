//! The targets in the gate: what is good is understood, and what is near it is borne.

use proptest::prelude::*;
use tidegate_fuzz::{Target, seeds};

#[test]
fn every_seed_is_understood() {
    for target in Target::ALL {
        for (number, seed) in seeds::of(target).iter().enumerate() {
            assert!(target.feed(seed) > 0, "seed {number} of {}", target.name());
        }
    }
}

#[test]
fn all_of_a_seed_is_understood() {
    let most = |target| seeds::of(target).iter().map(|seed| Target::feed(target, seed)).max();
    // The records of the journal, and of the pack; the frames of the wire, a write's two items.
    assert_eq!(most(Target::Journal), Some(5));
    assert_eq!(most(Target::Pack), Some(6));
    assert_eq!(most(Target::Wire), Some(8));
    // Three options that are answered; seven requests, of which a write has a payload in four parts.
    assert_eq!(most(Target::Nbd), Some(14));
    assert_eq!(most(Target::NbdReplies), Some(6));
}

fn target() -> impl Strategy<Value = Target> {
    prop::sample::select(Target::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_near_a_seed_is_borne(
        target in target(),
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let seeds = seeds::of(target);
        let mut bytes = pick.get(&seeds).clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        target.feed(&bytes);
    }
}
