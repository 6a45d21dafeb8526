//! Tells the governor what is scarce, and the cores what it decides.
//!
//! Every shard tells how many of its packs are under way; the first adds the rest and asks. How busy
//! the cores are is what the stages took, so that nothing is counted for it on the way of a unit.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use tidegate_pipeline::{Governor, Scarcity, Stage};
use tracing::debug;

use super::host::Host;
use super::shared::Shared;

/// How often the governor hears.
const INTERVAL: Duration = Duration::from_millis(50);

impl Host {
    /// Lets the governor choose the level, for ever; `run` cancels it.
    pub(super) async fn govern(self: Rc<Self>) {
        let mut governor = Governor::default();
        let (mut last_work, mut last) = (work(&self.shared), Instant::now());
        loop {
            Timer::new(INTERVAL).await;
            let packs = permille(self.packs_under_way(), self.shared.plan.pack_buffers_per_shard);
            self.shared.shard(self.number).packs_permille.store(packs, Ordering::Relaxed);
            if self.number != 0 {
                continue;
            }
            let (done, now) = (work(&self.shared), Instant::now());
            let cores = u32::try_from(self.shared.shards.len()).unwrap_or(u32::MAX);
            let could = (now - last).saturating_mul(cores).as_micros().max(1);
            let busy = done.saturating_sub(last_work).as_micros() * 1000 / could;
            (last_work, last) = (done, now);
            let of_shard =
                |ports: &super::shared::ShardPorts| ports.packs_permille.load(Ordering::Relaxed);
            let scarcity = Scarcity {
                busy: u32::try_from(busy).unwrap_or(1000).min(1000),
                units_wait: !self.shared.units.is_empty(),
                packs: self.shared.shards.iter().map(of_shard).max().unwrap_or(0),
            };
            let before = governor.level();
            let level = governor.hear(&scarcity);
            if level != before {
                debug!(before, level, ?scarcity, "the governor takes another level");
                self.shared.effort.set_level(level);
            }
        }
    }
}

/// What all cores together have spent on units.
fn work(shared: &Shared) -> Duration {
    let nanos = Stage::ALL.map(|stage| shared.times.get(stage).0);
    Duration::from_nanos(nanos.iter().sum())
}

fn permille(part: usize, of: usize) -> u32 {
    u32::try_from(part * 1000 / of.max(1)).unwrap_or(1000)
}
