//! Tells the governor what is scarce, and the cores what it decides.
//!
//! Every shard tells how many of its packs are under way; the first adds the rest and asks. What the
//! cores did is what the stages took, so that nothing is counted for it on the way of a unit.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use glommio::timer::Timer;
use tidegate_pipeline::{Governor, Scarcity, Stage, StageTimes, Work};
use tracing::{debug, trace};

use super::host::Host;
use super::shared::{ShardPorts, Shared};

/// How often the governor hears.
const INTERVAL: Duration = Duration::from_millis(50);

impl Host {
    /// Lets the governor choose the level, for ever; `run` cancels it.
    pub(super) async fn govern(self: Rc<Self>) {
        let mut governor = Governor::default();
        let (mut last_work, mut last) = (work(&self.shared.times), Instant::now());
        loop {
            Timer::new(INTERVAL).await;
            let packs = permille(self.packs_under_way(), self.shared.plan.pack_buffers_per_shard);
            self.shared.shard(self.number).packs_permille.store(packs, Ordering::Relaxed);
            if self.number != 0 {
                continue;
            }
            let (done, now) = (work(&self.shared.times), Instant::now());
            let scarcity = scarcity(&self.shared, now - last, since(&last_work, &done));
            (last_work, last) = (done, now);
            let before = governor.level();
            let level = governor.hear(&scarcity);
            trace!(level, ?scarcity, "the governor has heard");
            if level != before {
                debug!(before, level, ?scarcity, "the governor takes another level");
                self.shared.effort.set_level(level);
            }
        }
    }
}

fn scarcity(shared: &Shared, elapsed: Duration, work: Work) -> Scarcity {
    let cores = u32::try_from(shared.shards.len()).unwrap_or(u32::MAX);
    let of_shard = |ports: &ShardPorts| ports.packs_permille.load(Ordering::Relaxed);
    Scarcity {
        elapsed,
        work: Work { compress: work.compress / cores, rest: work.rest / cores, ..work },
        units_wait: !shared.units.is_empty(),
        packs: shared.shards.iter().map(of_shard).max().unwrap_or(0),
        link: shared.puts.rate(),
    }
}

/// What all cores together have done since the start: every unit passes the first stage with all of
/// its bytes, and the last with what is left of them.
fn work(times: &StageTimes) -> Work {
    let nanos = |stage: Stage| Duration::from_nanos(times.get(stage).0);
    let rest = Stage::ALL.into_iter().filter(|stage| *stage != Stage::Compress).map(nanos).sum();
    Work {
        bytes: times.get(Stage::Checksum).1,
        left_bytes: times.get(Stage::Seal).1,
        compress: nanos(Stage::Compress),
        rest,
    }
}

fn since(before: &Work, now: &Work) -> Work {
    Work {
        bytes: now.bytes.saturating_sub(before.bytes),
        left_bytes: now.left_bytes.saturating_sub(before.left_bytes),
        compress: now.compress.saturating_sub(before.compress),
        rest: now.rest.saturating_sub(before.rest),
    }
}

fn permille(part: usize, of: usize) -> u32 {
    u32::try_from(part * 1000 / of.max(1)).unwrap_or(1000)
}
