//! A cache bounded by bytes: what was used longest ago goes first. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values by key, at most so many bytes of them (but always the newest one).
#[derive(Debug)]
pub struct ByteCache<K, V> {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    values: HashMap<K, Slot<V>>,
    /// The keys by the time of their last use.
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> ByteCache<K, V> {
    /// An empty cache of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, clock: 0, values: HashMap::new(), order: BTreeMap::new() }
    }

    /// The value of `key`, which is now the one used last.
    pub fn get(&mut self, key: K) -> Option<V> {
        let slot = self.values.get_mut(&key)?;
        self.order.remove(&slot.used);
        self.clock += 1;
        slot.used = self.clock;
        self.order.insert(self.clock, key);
        Some(slot.value.clone())
    }

    /// Keeps `value`, which takes about `bytes` of memory, and drops what there is no room for.
    pub fn put(&mut self, key: K, value: V, bytes: usize) {
        self.remove(key);
        while self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key) else { break };
            self.remove(oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.order.insert(self.clock, key);
        self.values.insert(key, Slot { value, bytes, used: self.clock });
    }

    /// What all values together take.
    #[cfg(test)]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, key: K) {
        if let Some(slot) = self.values.remove(&key) {
            self.order.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut cache = ByteCache::new(30);
        for key in 0..3 {
            cache.put(key, key, 10);
        }
        assert_eq!(cache.get(0), Some(0));
        cache.put(3, 3, 10);
        assert_eq!([0, 1, 2, 3].map(|key| cache.get(key)), [Some(0), None, Some(2), Some(3)]);
        assert_eq!(cache.bytes, 30);
    }

    #[test]
    fn a_value_too_large_for_the_bound_stays_only_until_the_next() {
        let mut cache = ByteCache::new(30);
        cache.put(0, 'a', 10);
        cache.put(1, 'b', 99);
        assert_eq!((cache.get(0), cache.get(1)), (None, Some('b')));
        cache.put(2, 'c', 10);
        assert_eq!((cache.get(1), cache.get(2), cache.bytes), (None, Some('c'), 10));
        cache.put(2, 'd', 20);
        assert_eq!((cache.get(2), cache.bytes), (Some('d'), 20));
    }
}
