//! `tidegate bench`: makes the load, and the server and the store that it is for; the measuring is
//! [`crate::bench`]'s.

mod live;
mod site;

use std::path::Path;
use std::time::Duration;

use tidegate_model::Counted;
use tidegate_vault::identity::Role;

use self::site::Site;
use crate::bench::corpus::{Corpus, Mix};
use crate::bench::measure::{self, Plan};
use crate::bench::{About, LoadSettings, Report, compare, html, text};
use crate::cli::{BenchArgs, BenchCommand, BenchRunArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Stop;

/// Streams unless it is said otherwise.
const STREAMS_DEFAULT: u16 = 8;
/// Most streams over pipes: all of them say hello to one shard.
const PIPES_MAX: usize = 512;

pub(super) async fn run(args: BenchArgs, output: Output, stop: Stop) -> Result<(), Failure> {
    if let Some(BenchCommand::Compare { a, b }) = &args.command {
        let compared = compare::compare(&read(a)?, &read(b)?);
        output.result(&compared, compare::text)?;
        return Ok(());
    }
    if let Some(BenchCommand::Live(args)) = &args.command {
        let waiting = output.waiting("measuring");
        let report = live::measure(args, &stop).await;
        waiting.finish_and_clear();
        output.result(&report?, crate::bench::live::text)?;
        return Ok(());
    }
    let report = measure(args.run, output, &stop).await?;
    output.result(&report, text)?;
    Ok(())
}

async fn measure(args: BenchRunArgs, output: Output, stop: &Stop) -> Result<Report, Failure> {
    let waiting = output.waiting("making the load");
    let corpus = super::unless_stopped(stop, corpus(&args)).await?;
    waiting.finish_and_clear();
    let before_bytes = site::memory_before();
    let site = Site::make(&args, stop).await?;
    let waiting = output.waiting("measuring");
    let measured = super::unless_stopped(stop, async {
        let seats = site.seats(&args)?;
        let plan = Plan {
            rounds: args.rounds.into(),
            length: Duration::from_secs_f64(args.seconds),
            level: site.level.unwrap_or(super::LEVEL_REPLICATE),
            block_bytes: site.block_bytes,
            cores: site.cores,
            floor_tls: site.floor_tls.clone(),
            receives: !args.pipe,
            sends: args.vault.is_some(),
            before_bytes,
        };
        let about = about(&args, &site, seats.len());
        let load = LoadSettings {
            corpus: corpus.into(),
            disks: args.disks.into(),
            threads: args.load_threads.into(),
            bytes_per_second: args.rate,
        };
        measure::run(plan, seats, load, site.server.as_ref(), about).await
    });
    let measured = measured.await;
    waiting.finish_and_clear();
    // Whatever became of the load, the server ends in order; its failure explains more.
    site.stop().await?;
    let report = measured?;
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&report)).map_err(|error| {
            Failure::usage(format!("can't write the report {}: {error}", path.display()))
        })?;
    }
    Ok(report)
}

/// Makes or reads the bytes to send; on a thread of its own, for it takes its time.
async fn corpus(args: &BenchRunArgs) -> Result<Corpus, Failure> {
    let record_bytes = usize::try_from(args.write_bytes).unwrap_or(usize::MAX);
    let mix = Mix {
        bytes: usize::try_from(args.corpus).unwrap_or(usize::MAX).max(record_bytes),
        record_bytes,
        zeros: args.zeros,
        duplicates: args.duplicates,
        compressible: args.compressible,
        random: args.random,
    };
    let image = args.image.clone();
    let make = move || match image {
        None => Ok(Corpus::make(mix)),
        Some(path) => Corpus::read(&path, mix).map_err(|error| {
            Failure::usage(format!("can't read the image {}: {error}", path.display()))
        }),
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| Failure::failed(format!("can't make the load: {error}")))?
}

/// How many streams there are to be.
fn streams(args: &BenchRunArgs) -> Result<usize, Failure> {
    let usual = match args.identity.len() {
        0 => STREAMS_DEFAULT.into(),
        identities => identities,
    };
    let streams = args.streams.map_or(usual, usize::from);
    if args.server.is_some() && streams != args.identity.len() {
        return Err(Failure::usage(format!(
            "for {} as many identities of role {} are needed; {} came with --identity",
            Counted(streams, "stream"),
            Role::Machine,
            args.identity.len()
        )));
    }
    if args.pipe && streams > PIPES_MAX {
        return Err(Failure::usage(format!("over pipes there are at most {PIPES_MAX} streams")));
    }
    Ok(streams)
}

fn about(args: &BenchRunArgs, site: &Site, streams: usize) -> About {
    let made = || {
        format!(
            "{} % zeros, {} % duplicates, {} % compressible",
            args.zeros, args.duplicates, args.compressible
        )
    };
    About {
        host: super::host_name().to_string(),
        cores: site.cores,
        streams,
        disks: args.disks.into(),
        write_bytes: args.write_bytes,
        random: args.random,
        data: args.image.as_ref().map_or_else(made, |path| path.display().to_string()),
        rate: args.rate,
        load_threads: args.load_threads.into(),
        transport: match &args.server {
            Some(server) => format!("over TLS to {server}"),
            None if args.pipe => "through pipes".to_owned(),
            None => "over TLS on loopback".to_owned(),
        },
        store: site.store.clone(),
        level: site.level,
        seconds_a_round: args.seconds,
    }
}

fn read(path: &Path) -> Result<serde_json::Value, Failure> {
    let refuse = |cause: String| Failure::usage(format!("{}: {cause}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let result: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    if result["bench"] != "tidegate bench" {
        return Err(refuse("it isn't what 'tidegate --json bench' prints".to_owned()));
    }
    Ok(result)
}
