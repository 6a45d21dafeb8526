//! `tidegate bench live`: a server, an agent and a disk of this process, and clients that write to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_agent::RetryPolicy;
use tidegate_agent::live::{
    self, DiskSource, Hooks, LiveDisk, LiveSettings, PassSettings, Server as LiveServer, Serving,
};
use tidegate_model::DiskNumber;
use tidegate_nbd::serve::Address;
use tidegate_vault::Vault;
use tidegate_vault::identity::Role;
use tidegate_vault::store::Slowness;
use tokio::sync::oneshot;

use super::site::{issue, name, start, throw_away, tls_connector};
use crate::bench::live::{LiveLoad, LiveReport, LiveRound, WRITE_BYTES, initial_copy_ended};
use crate::cli::BenchLiveArgs;
use crate::failure::Failure;
use crate::server::{Server, ServerIdentity};
use crate::signals::Stop;

/// Memory for what is sent and not committed: the agent's default.
const WINDOW_BYTES: u64 = 64 << 20;
/// No bookmark comes in between: each closes a pack.
const NO_BOOKMARKS: Duration = Duration::from_secs(86_400);

/// All rounds: each with the link up, and then, where that is asked for, one with it cut.
pub(super) async fn measure(args: &BenchLiveArgs, stop: &Stop) -> Result<LiveReport, Failure> {
    let links: &[bool] = if args.cut { &[true, false] } else { &[true] };
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        for linked in links {
            rounds.push(round(args, *linked, stop).await?);
        }
    }
    Ok(LiveReport::of(args.rate, args.clients.into(), rounds))
}

/// One round, with everything begun anew.
async fn round(args: &BenchLiveArgs, linked: bool, stop: &Stop) -> Result<LiveRound, Failure> {
    let folder =
        args.folder.join(format!("bench-{:016x}", u64::from_le_bytes(super::super::random()?)));
    std::fs::create_dir(&folder).map_err(|error| {
        Failure::usage(format!("can't make {}: {error}; name another --folder", folder.display()))
    })?;
    let measured = round_in(args, &folder, linked, stop).await;
    // What can't be removed is told by its being there.
    let _ = std::fs::remove_dir_all(&folder);
    measured
}

async fn round_in(
    args: &BenchLiveArgs,
    folder: &Path,
    linked: bool,
    stop: &Stop,
) -> Result<LiveRound, Failure> {
    let (image, socket) = (folder.join("disk"), folder.join("socket"));
    make_disk(&image, args.disk_size).map_err(|error| {
        Failure::usage(format!("can't make a disk in {}: {error}", folder.display()))
    })?;
    let latency = Duration::from_millis(args.store_latency_ms);
    let vault = throw_away(Slowness { latency, bytes_per_second: 0 }).await?;
    let server = serve(args, &vault, stop).await?;
    let address = server.address().ok_or_else(|| Failure::failed("no server listens"))?;
    let settings = settings(args, folder, &image, &socket, &vault, address)?;
    let agent = settings.folder.clone();
    let (ready, served) = oneshot::channel();
    let ready = std::sync::Mutex::new(Some(ready));
    let told = move |_: &Serving| {
        let ready = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // Nobody waits any more where the command was stopped.
        ready.map(|ready| ready.send(()));
    };
    let ending = Stop::new();
    let watch = ending.watch();
    let running = tokio::spawn(async move { live::run(settings, watch, told).await });
    let load = LiveLoad {
        disk: socket,
        disk_bytes: args.disk_size,
        agent: agent.clone(),
        clients: args.clients.into(),
        rate: args.rate,
        length: Duration::from_secs_f64(args.seconds),
        linked,
    };
    let work = async {
        // An agent that ended instead says why.
        let _ = served.await;
        initial_copy_ended(&agent).await
    };
    let mut measured = super::super::unless_stopped(stop, work).await;
    let mut server = Some(server);
    if measured.is_ok()
        && !linked
        && let Some(server) = server.take()
    {
        measured = server.stop().await.map(|_| ()).map_err(Failure::from);
    }
    let measured = match measured {
        Ok(()) => super::super::unless_stopped(stop, load.run()).await,
        Err(failure) => Err(failure),
    };
    ending.stop();
    let ended = running.await.map_err(|error| Failure::failed(error.to_string()))?;
    if let Some(server) = server {
        server.stop().await?;
    }
    ended?;
    measured
}

/// A disk of which every block is there.
fn make_disk(image: &Path, bytes: u64) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create_new(image)?;
    let block = vec![1; WRITE_BYTES as usize];
    for _ in 0..bytes / u64::from(WRITE_BYTES) {
        file.write_all(&block)?;
    }
    file.sync_all()
}

async fn serve(args: &BenchLiveArgs, vault: &Vault, stop: &Stop) -> Result<Server, Failure> {
    let mut settings = super::super::server_settings(name("bench", 0)?, &args.engine)?;
    let identity = issue(&vault.authority()?, name("bench", 0)?, Role::Server, Vec::new())?;
    settings.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    settings.identity =
        Some(ServerIdentity { certificates: identity.chain(), key: identity.key() });
    start(vault.clone(), settings, stop).await
}

fn settings(
    args: &BenchLiveArgs,
    folder: &Path,
    image: &Path,
    socket: &Path,
    vault: &Vault,
    server: SocketAddr,
) -> Result<LiveSettings, Failure> {
    let machine = name("machine", 0)?;
    let identity = issue(&vault.authority()?, machine.clone(), Role::Machine, Vec::new())?;
    let connector = Box::new(tls_connector(&identity, &server.to_string())?);
    let agent = folder.join("agent");
    std::fs::create_dir(&agent)
        .map_err(|error| Failure::usage(format!("can't make {}: {error}", agent.display())))?;
    let source = DiskSource::Tap { listen: Address::Unix(socket.to_owned()) };
    let disk = LiveDisk { number: DiskNumber::default(), path: image.to_owned(), source };
    let spare: [u8; 16] = super::super::random()?;
    Ok(LiveSettings {
        machine,
        vault: vault.id(),
        folder: agent,
        journal_bytes: args.journal_size,
        window_bytes: WINDOW_BYTES,
        disks: vec![disk],
        servers: Arc::new(vec![LiveServer { name: server.to_string(), connector }]),
        bookmark_interval: NO_BOOKMARKS,
        application_interval: None,
        passes: PassSettings::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy::default(),
        clock: super::super::clock(),
        boot: [1; 16],
        random: Arc::new(move || super::super::random().unwrap_or(spare)),
    })
}
