//! Import rules that stand in the text only: what the standard library offers to everyone, and
//! parts of a crate.

use crate::files::Source;

/// A part of the tree, what its text may not hold, and why.
struct Rule {
    below: &'static str,
    never: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        below: "crates/model/src/",
        never: WAITS,
        why: "the nouns neither wait nor ask a clock",
    },
    Rule { below: "crates/wire/src/", never: WAITS, why: "the protocol has no I/O and no clock" },
    Rule { below: "crates/nbd/src/", never: WAITS, why: "NBD is spoken without I/O and clocks" },
    Rule {
        below: "crates/nbd/src/",
        never: &["rustix", "tracing"],
        why: "only the shells make system calls",
    },
    Rule { below: "crates/hrl/src/format/", never: WAITS, why: "the format has no I/O" },
    Rule { below: "crates/hrl/src/order/", never: WAITS, why: "the order record has no I/O" },
    Rule { below: "crates/hrl/src/scan/", never: WAITS, why: "a log is read through ReadAt" },
    Rule {
        below: "crates/hrl/src/journal/",
        never: WAITS,
        why: "the journal waits in its storage and its shell, and has no clock",
    },
    Rule {
        below: "pipeline/src/",
        never: &["std::fs", "std::net", "std::process", "SystemTime"],
        why: "the data path sees no sockets, no files and no calendar",
    },
    Rule {
        below: "crates/vault/src/",
        never: &["TcpStream", "TcpListener", "UdpSocket"],
        why: "the vault never sees a connection",
    },
];

/// The shells of crates that otherwise only decide: they may wait.
const SHELLS: &[&str] = &["crates/nbd/src/serve/", "crates/nbd/src/client/shell.rs"];

const WAITS: &[&str] =
    &["std::fs", "std::net", "std::process", "std::thread", "std::time::Instant", "SystemTime"];

/// What the pipeline may use of the vault: its codec and its pack writer.
const VAULT_FOR_PIPELINE: &[&str] = &["pack", "seal"];

pub fn complaints(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let is_shell = SHELLS.iter().any(|shell| source.path.starts_with(shell));
        let holds = |rule: &&Rule| source.path.starts_with(rule.below) && !is_shell;
        for rule in RULES.iter().filter(holds) {
            let found = rule.never.iter().filter(|never| source.text.contains(**never));
            complaints.extend(
                found.map(|never| {
                    format!("{} has {never}, but {}: pass it in", source.path, rule.why)
                }),
            );
        }
        if source.path.starts_with("pipeline/") {
            complaints.extend(vault_parts(source));
        }
    }
    complaints
}

fn vault_parts(source: &Source) -> Vec<String> {
    let uses = source.text.split("tidegate_vault").skip(1);
    let part = |rest: &str| {
        let rest = rest.strip_prefix("::").unwrap_or_default();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    };
    let other = uses.map(part).filter(|part| !VAULT_FOR_PIPELINE.contains(&part.as_str()));
    other
        .map(|part| {
            format!(
                "{} uses tidegate_vault::{part}, but the pipeline sees only the vault's {}",
                source.path,
                VAULT_FOR_PIPELINE.join(" and ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{none, one};

    fn of(path: &str, text: &str) -> Vec<String> {
        complaints(&[Source { path: path.to_owned(), text: text.to_owned() }])
    }

    #[test]
    fn waiting_in_a_crate_that_only_decides_is_found() {
        one(&of("crates/wire/src/frame.rs", "use std::net::TcpStream;"), "no I/O");
        one(&of("crates/nbd/src/handshake.rs", "use std::net::TcpStream;"), "without I/O");
        one(&of("crates/nbd/src/transmission.rs", "rustix::net::recv"), "only the shells");
        none(&of("crates/nbd/src/serve/socket.rs", "use std::thread; rustix::net::recv"));
        none(&of("crates/nbd/src/client/shell.rs", "use std::net::TcpStream;"));
        one(&of("crates/nbd/src/client/asking.rs", "use std::net::TcpStream;"), "without I/O");
        one(&of("crates/hrl/src/journal/state.rs", "std::fs::remove_file"), "its storage");
        none(&of("crates/hrl/src/uring/mod.rs", "use std::fs::File;"));
        one(&of("crates/model/src/lsn.rs", "SystemTime::now()"), "pass it in");
        one(&of("pipeline/src/pack.rs", "std::fs::read(path)"), "no files");
        one(&of("crates/vault/src/store.rs", "use std::net::TcpStream;"), "connection");
        none(&of("crates/agent/src/reader.rs", "use std::fs::File;"));
    }

    #[test]
    fn the_pipeline_reaching_deeper_into_the_vault_is_found() {
        none(&of("pipeline/src/a.rs", "use tidegate_vault::pack::Codec; tidegate_vault::seal::X"));
        one(&of("pipeline/src/a.rs", "use tidegate_vault::store::Store;"), "tidegate_vault::store");
        one(&of("pipeline/tests/a.rs", "use tidegate_vault::{pack, store};"), "sees only");
    }
}
