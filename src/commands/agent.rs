//! `tidegate agent run`, and what is asked of the agent that runs: `status`, `bookmark`, `pass`, `resync`.

mod text;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_agent::RetryPolicy;
use tidegate_agent::connect::{ServerAddress, TlsConnector, TlsIdentity};
use tidegate_agent::live::{
    self, Answer, BitmapSource, DiskSource, Hooks, LastPass, LiveDisk, LiveSettings, PassSettings,
    Request, Server, Serving,
};
use tidegate_vault::identity::Identity;

use crate::cli::{
    AgentBookmarkArgs, AgentPassArgs, AgentResyncArgs, AgentRunArgs, AgentStatusArgs,
};
use crate::config::agent::{
    self as config, AgentConfig, DiskConfig, HookConfig, PassConfig, Source,
};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;
use text::{marked_text, pass_text, serving_text, status_text};

/// Where the system says which start of the host this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How often it is looked whether a pass has ended.
const PASS_LOOK: Duration = Duration::from_millis(200);

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
    let bookmarks = config.bookmarks.unwrap_or_default();
    Ok(LiveSettings {
        machine: identity.name().clone(),
        vault: identity.vault(),
        folder: config.folder,
        journal_bytes: config.journal_size.0,
        window_bytes: config.window.0,
        disks,
        servers: Arc::new(servers),
        bookmark_interval: seconds(bookmarks.every),
        application_interval: bookmarks.application_every.map(seconds),
        passes: passes(config.passes.unwrap_or_default()),
        hooks: hooks(config.hooks),
        retry: RetryPolicy { seed, ..RetryPolicy::default() },
        clock: super::clock(),
        boot: boot_id()?,
        random: Arc::new(move || super::random().unwrap_or(spare)),
    })
}

fn hooks(config: HookConfig) -> Hooks {
    let HookConfig { freeze, thaw, file_systems, timeout } = config;
    Hooks { freeze, thaw, file_systems, limit: Duration::from_secs(timeout) }
}

fn connector(server: &str, identity: &Identity) -> Result<Server, Failure> {
    let address: ServerAddress = server.parse()?;
    let tls = TlsIdentity { certificates: identity.chain(), key: identity.key() };
    let name = address.to_string();
    let connector = TlsConnector::new(address, tls, super::copy::judge_servers(identity))?;
    Ok(Server { name, connector: Box::new(connector) })
}

fn disk(config: &DiskConfig) -> Result<LiveDisk, Failure> {
    let address = |name: &str, text: &Option<String>| {
        text.as_deref().unwrap_or_default().parse().map_err(|error| {
            let number = config.number;
            Failure::usage(format!("'{name}' of disk {number} in the configuration: {error}"))
        })
    };
    // What a source needs was looked for when the configuration was read.
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let source = match (config.source, &config.qmp) {
        (Source::Nbd, _) => DiskSource::Tap { listen: address("listen", &config.listen)? },
        (Source::Scan, _) => DiskSource::Scan { snapshot: config.snapshot.clone() },
        (Source::Bitmap, Some(monitor)) => DiskSource::Bitmap(BitmapSource::Monitor {
            monitor: monitor.clone(),
            address: address("nbd", &config.nbd)?,
            node: text(&config.node),
            scratch: config.scratch.clone(),
        }),
        (Source::Bitmap, None) => DiskSource::Bitmap(BitmapSource::Export {
            address: address("nbd", &config.nbd)?,
            export: text(&config.export),
            bitmap: text(&config.bitmap),
        }),
    };
    Ok(LiveDisk { number: config.number, path: config.path.clone(), source })
}

fn passes(config: PassConfig) -> PassSettings {
    let PassConfig { every, before, after, timeout, application } = config;
    let (every, limit) = (every.map(Duration::from_secs), Duration::from_secs(timeout));
    PassSettings { every, before, after, limit, application }
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

pub(super) async fn pass(args: AgentPassArgs, output: Output) -> Result<(), Failure> {
    let (number, life) = match ask(&args.config, Request::Pass { name: args.name }).await? {
        Answer::Pass { number, life } => (number, life),
        other => return Err(unexpected(&other)),
    };
    let pass = loop {
        let Answer::Status(status) = ask(&args.config, Request::Status).await? else {
            return Err(unexpected(&Answer::Pass { number, life }));
        };
        let passes = status.passes.filter(|passes| passes.life == life).ok_or_else(|| {
            Failure::failed(
                "the agent began anew before the pass was made: ask once more".to_owned(),
            )
        })?;
        match passes.last.filter(|last| last.number >= number) {
            Some(last) => break last,
            None => tokio::time::sleep(PASS_LOOK).await,
        }
    };
    match &pass.failed {
        Some(why) => Err(Failure::failed(format!("the pass came to nothing: {why}"))),
        None => output.result(&pass, |pass: &LastPass| format!("the pass {}", pass_text(pass))),
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
    let work = match &request {
        // Its own, and of one that is under way.
        Request::Bookmark { application: true, .. } => 2 * hooks(config.hooks).longest(),
        _ => Duration::ZERO,
    };
    Ok(live::ask(&live::socket_of(&config.folder), &request, work).await?)
}

fn unexpected(answer: &Answer) -> Failure {
    match answer {
        Answer::Refused(why) => Failure::failed(why.clone()),
        _ => Failure::failed("the agent answered something else; use one of the same release"),
    }
}
