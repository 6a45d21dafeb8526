//! `tidegate agent run`, and what is asked of the agent that runs: `status`, `bookmark`, `resync`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_agent::RetryPolicy;
use tidegate_agent::connect::{ServerAddress, TlsConnector, TlsIdentity};
use tidegate_agent::live::{
    self, Answer, Hooks, LiveDisk, LiveSettings, Marked, Mode, Request, Server, Serving, Status,
};
use tidegate_model::{Epoch, HumanBytes, Incarnation};
use tidegate_vault::identity::Identity;

use crate::cli::{AgentBookmarkArgs, AgentResyncArgs, AgentRunArgs, AgentStatusArgs};
use crate::config::agent::{self as config, AgentConfig, DiskConfig, Source};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;

/// Where the system says which start of the host this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) async fn run(args: AgentRunArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    let config = config::read(&args.config)?;
    let identity = super::copy::machine_identity(&config.identity)?;
    let settings = settings(config, &identity)?;
    let ready = move |serving: &Serving| {
        // Who can't be told where the disks are finds them in the configuration.
        if let Err(error) = output.result(serving, serving_text) {
            tracing::warn!(%error, "nobody was told what is served");
        }
    };
    Ok(live::run(settings, stop.watch(), ready).await?)
}

fn settings(config: AgentConfig, identity: &Identity) -> Result<LiveSettings, Failure> {
    let servers = config.servers.iter().map(|server| connector(server, identity));
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    let disks = config.disks.iter().map(disk).collect::<Result<Vec<_>, _>>()?;
    let seed = u64::from_le_bytes(super::random()?);
    // What the system gives now it gives later.
    let spare: [u8; 16] = super::random()?;
    let seconds = Duration::from_secs;
    Ok(LiveSettings {
        machine: identity.name().clone(),
        vault: identity.vault(),
        folder: config.folder,
        journal_bytes: config.journal_size.0,
        window_bytes: config.window.0,
        disks,
        servers: Arc::new(servers),
        bookmark_interval: seconds(config.bookmarks.every),
        application_interval: config.bookmarks.application_every.map(seconds),
        hooks: Hooks {
            freeze: config.hooks.freeze,
            thaw: config.hooks.thaw,
            file_systems: config.hooks.file_systems,
            limit: seconds(config.hooks.timeout),
        },
        retry: RetryPolicy { seed, ..RetryPolicy::default() },
        clock: super::clock(),
        boot: boot_id()?,
        new_incarnation: Arc::new(move || {
            super::new_incarnation().unwrap_or(Incarnation::from_bytes(spare))
        }),
    })
}

fn connector(server: &str, identity: &Identity) -> Result<Server, Failure> {
    let address: ServerAddress = server.parse()?;
    let tls = TlsIdentity { certificates: identity.chain(), key: identity.key() };
    let name = address.to_string();
    let connector = TlsConnector::new(address, tls, super::copy::judge_servers(identity))?;
    Ok(Server { name, connector: Box::new(connector) })
}

fn disk(config: &DiskConfig) -> Result<LiveDisk, Failure> {
    let Source::Nbd = config.source;
    let listen = config.listen.parse().map_err(|error| {
        Failure::usage(format!("'listen' of disk {} in the configuration: {error}", config.number))
    })?;
    Ok(LiveDisk { number: config.number, path: config.path.clone(), listen })
}

/// What tells one start of this host from another.
fn boot_id() -> Result<[u8; 16], Failure> {
    let unread = |why: String| Failure::failed(format!("{BOOT_ID} can't be read: {why}"));
    let text = std::fs::read_to_string(BOOT_ID).map_err(|error| unread(error.to_string()))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(|error| unread(error.to_string()))?;
    Ok(id.to_be_bytes())
}

pub(super) async fn status(args: AgentStatusArgs, output: Output) -> Result<(), Failure> {
    match ask(&args.config, Request::Status).await? {
        Answer::Status(status) => output.result(&status, |status| status_text(status)),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn bookmark(args: AgentBookmarkArgs, output: Output) -> Result<(), Failure> {
    let request = Request::Bookmark { name: args.name, application: args.application };
    match ask(&args.config, request).await? {
        Answer::Marked(marked) => output.result(&marked, marked_text),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn resync(args: AgentResyncArgs, output: Output) -> Result<(), Failure> {
    match ask(&args.config, Request::Resync).await? {
        Answer::Resync => {
            let begun = ResyncBegun { resync: true };
            output.result(&begun, |_| {
                "the disks are compared with the vault; see `tidegate agent status`".to_owned()
            })
        }
        other => Err(unexpected(&other)),
    }
}

/// What is told of a resync, which goes on by itself.
#[derive(Serialize)]
struct ResyncBegun {
    resync: bool,
}

async fn ask(path: &Path, request: Request) -> Result<Answer, Failure> {
    let config = config::read(path)?;
    Ok(live::ask(&live::socket_of(&config.folder), &request).await?)
}

fn unexpected(answer: &Answer) -> Failure {
    match answer {
        Answer::Refused(why) => Failure::failed(why.clone()),
        _ => Failure::failed("the agent answered something else; use one of the same release"),
    }
}

fn serving_text(serving: &Serving) -> String {
    let disk = |disk: &live::ServedDisk| {
        format!("  disk {}: {} at {}", disk.number, HumanBytes(disk.bytes), disk.uri)
    };
    let disks: Vec<String> = serving.disks.iter().map(disk).collect();
    format!("serving the disks of {}:\n{}", serving.machine, disks.join("\n"))
}

fn marked_text(marked: &Marked) -> String {
    let Marked { name, epoch, lsn, .. } = marked;
    match *epoch {
        Epoch::NONE => {
            format!("bookmark '{name}' at LSN {lsn}; no server has granted an epoch yet")
        }
        epoch => format!("bookmark '{name}' at {epoch}:{lsn}"),
    }
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn status_text(status: &Status) -> String {
    let connection = match (&status.trouble, status.connected) {
        (_, true) => format!("connected with {}", status.server),
        (None, false) => format!("connecting with {}", status.server),
        (Some(trouble), false) => format!("not connected: {trouble}"),
    };
    let backlog = format!(
        "{} records wait ({} of {}), the oldest for {:.1} s; {}/s",
        status.backlog_records,
        HumanBytes(status.backlog_bytes),
        HumanBytes(status.journal_bytes_max),
        status.lag_ms as f64 / 1000.0,
        HumanBytes(status.bytes_per_second),
    );
    let what = if status.copy.resync { "resync" } else { "initial copy" };
    let copy = match (status.copy.end, status.copy.seconds_left) {
        (Some(end), _) => format!("the {what} ended at {}:{end}", status.epoch),
        (None, left) => format!(
            "{what}: {} of {}{}",
            HumanBytes(status.copy.bytes_copied),
            HumanBytes(status.copy.bytes_total),
            left.map_or_else(String::new, |left| format!(", {left} s left"))
        ),
    };
    let disk = |disk: &live::DiskStatus| match disk.mode {
        Mode::Data => format!("disk {} ({}): data, at {}", disk.number, disk.path, disk.listen),
        Mode::Bitmap => format!(
            "disk {} ({}): bitmap, {} to be read again; the journal was full: history has a gap",
            disk.number,
            disk.path,
            HumanBytes(disk.dirty_bytes)
        ),
    };
    let head = format!("{}, epoch {}: {connection}", status.machine, status.epoch);
    let mut lines = vec![head, backlog, copy];
    lines.extend(status.disks.iter().map(disk));
    lines.extend(status.bookmark.iter().map(|newest| format!("newest {}", marked_text(newest))));
    lines.join("\n")
}
