//! `tidegate mount`: serves a machine's disks as they were over NBD, at once.

mod exports;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_model::{Counted, HumanBytes, Remedy};
use tidegate_nbd::serve::{ServeError, Server};
use tidegate_vault::log::LogReader;
use tidegate_vault::restore::PointView;
use tokio::runtime::Handle;

use self::exports::{Exported, offers};
use self::memory::{Memory, Term};
use super::chosen::{Chosen, ToldPoint, Wanted, not_restored};
use super::pinned::Pinned;
use crate::cli::{MountArgs, PointArgs};
use crate::failure::{Failure, with_causes};
use crate::mount::{Beneath, Foundation, MountedDisk, Overlay};
use crate::output::Output;
use crate::signals::Stop;

#[cfg(test)]
pub(crate) use self::memory::MEMORY_DEFAULT;

/// How long clients have to take their last replies.
const LAST_REPLIES: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Mounted {
    #[serde(flatten)]
    point: ToldPoint,
    serving: String,
    exports: Vec<Exported>,
    overlay: Option<String>,
    /// What the overlay had already.
    overlay_bytes: u64,
    memory_bound_bytes: u64,
    memory: Vec<Term>,
    /// The map of the point, which comes besides.
    map_bytes: usize,
}

pub(super) async fn run(args: MountArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let pinned = Pinned::default();
    let served = tokio::select! {
        served = serve(args, &pinned, &output, &stop) => served,
        never = pinned.keep() => match never {},
    };
    pinned.release().await;
    served
}

/// Serves the point until it is asked to stop.
async fn serve(
    args: MountArgs,
    pinned: &Pinned,
    output: &Output,
    stop: &Stop,
) -> Result<(), Failure> {
    let (foundation, server) =
        super::unless_stopped(stop, start(args, pinned, output, stop)).await?;
    stop.asked().await;
    // Not on this thread: what is under way needs it to end.
    let stopped = tokio::task::spawn_blocking(move || {
        server.stop(LAST_REPLIES);
        foundation.flush()
    });
    let flushed = stopped.await.map_err(|error| Failure::failed(error.to_string()))?;
    flushed.map_err(|error| {
        Failure::failed(format!(
            "what was written to the overlay since its last flush isn't durable: {error}"
        ))
    })
}

/// Serves the point, and says so. Dropping this leaves nothing but, perhaps, an empty overlay.
async fn start(
    args: MountArgs,
    pinned: &Pinned,
    output: &Output,
    stop: &Stop,
) -> Result<(Arc<Foundation>, Server), Failure> {
    let PointArgs { machine, vault, disk, at } = args.point;
    let wanted = Wanted::parse(&at)?;
    // Refused before a secret is asked for, where it is too little for any machine.
    let memory = Memory::of(args.memory, 1)?;
    let vault = super::open_to_pin(&vault).await?;
    let (store, ring) = (vault.store().clone(), vault.ring().clone());
    let reader = LogReader::new(store, ring, memory.index_bytes);
    let found = pinned.read(&reader, &machine, &wanted, output).await?;
    eprintln!("mounting {machine} at {}", found.told());
    let only: Vec<_> = disk.into_iter().collect();
    let disks = if only.is_empty() { found.point.disks.len() } else { 1 };
    let memory = Memory::of(args.memory, disks)?;
    let point = found.point.point;
    let waiting = output.waiting("reading the vault's indexes");
    let view = PointView::build(&reader, &found.history, point, &only, memory.view).await;
    let view = view.map_err(not_restored)?;
    waiting.finish_and_clear();
    let beneath = Beneath::of(vault.ring().vault(), machine, point, view.disks());
    let overlay = args.overlay.as_deref().map(|path| Overlay::open(path, &beneath)).transpose()?;
    let mut mounted = Mounted::of(&found, &memory, &view);
    mounted.overlay = args.overlay.map(|path| path.display().to_string());
    mounted.overlay_bytes = overlay.as_ref().map_or(0, Overlay::bytes);
    let foundation = Foundation::new(view, overlay, Handle::current(), stop.clone());
    let disks: Vec<Arc<MountedDisk>> = foundation.disks().into_iter().map(Arc::new).collect();
    let offers = offers(&disks, mounted.overlay.is_some())?;
    let server = Server::start(&args.nbd, offers, memory.clients).map_err(not_served)?;
    mounted.serving = server.address().to_string();
    mounted.exports = disks.iter().map(|disk| Exported::at(server.address(), disk)).collect();
    output.result(&mounted, text)?;
    Ok((foundation, server))
}

impl Mounted {
    /// What is known before anything is served.
    fn of(found: &Chosen, memory: &Memory, view: &PointView) -> Self {
        Self {
            point: found.result(),
            serving: String::new(),
            exports: Vec::new(),
            overlay: None,
            overlay_bytes: 0,
            memory_bound_bytes: memory.bytes(),
            memory: memory.terms(),
            map_bytes: view.map_bytes(),
        }
    }
}

fn text(mounted: &Mounted) -> String {
    let mut lines = vec![format!(
        "{} of {} at {}:{} served at {}, {}",
        Counted(mounted.exports.len(), "disk"),
        mounted.point.machine,
        mounted.point.epoch,
        mounted.point.lsn,
        mounted.serving,
        match &mounted.overlay {
            Some(overlay) =>
                format!("written to {overlay}, which has {}", HumanBytes(mounted.overlay_bytes)),
            None => "read-only".to_owned(),
        }
    )];
    for Exported { disk, name, bytes, uri } in &mounted.exports {
        lines.push(format!("disk {disk} ({name}), {}: {uri}", HumanBytes(*bytes)));
    }
    let map = HumanBytes(mounted.map_bytes as u64);
    lines.push(format!(
        "memory: {} at most, and {map} for the map of the point",
        HumanBytes(mounted.memory_bound_bytes)
    ));
    lines.join("\n")
}

fn not_served(error: ServeError) -> Failure {
    let remedy = match &error {
        ServeError::Thread(_) => Remedy::Stop,
        _ => Remedy::Refuse,
    };
    Failure::new(with_causes(&error), remedy)
}
